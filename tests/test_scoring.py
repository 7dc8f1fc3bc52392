"""Proposals of whole images, and what queries take from budgets, against plain loops; windows are in round_twin."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_maps import pool_of

from cereals_core.grid import map_shape
from cereals_core.information import quantise
from cereals_core.seeding import rng
from cereals_core.settings import Acquisition
from tasks import tables
from tasks.labels import Ledger
from tasks.layout import LEDGER, MAPS
from tasks.maps import MapStore
from tasks.products import Product
from tasks.scoring import Scoring

SIZES = [(16, 24), (30, 33), (16, 24), (16, 24), (30, 33), (16, 24)]
POOL = pool_of(SIZES, 2)
TOUCHED = {"001": (8, 16, 8, 8), "003": (0, 0, 16, 24)}
"""Image id to the one box that is labelled."""


def ledger(folder: Path) -> Ledger:
    rows = [
        {"round": -1, "rank": 0, "image_id": name, "y": y, "x": x, "height": height, "width": width, "vertices": 1.0}
        for name, (y, x, height, width) in TOUCHED.items()
    ]
    folder.mkdir()
    tables.write_table(folder / LEDGER, tables.LEDGER, rows)
    return Ledger(make_product(folder))


def make_product(folder: Path) -> Product:
    return Product(folder, "", "", "", 0.0, 0)


def maps(folder: Path, name: str) -> tuple[Product, dict[int, np.ndarray]]:
    """Random maps of all images, stored and by rank."""
    by_rank = {
        image.rank: quantise(
            rng(0, name, image.rank).normal(1, 2, map_shape(image.height, image.width)).astype(np.float32)
        )
        for image in POOL.images
    }
    store = MapStore.create(folder / name / MAPS, POOL, map_shape)
    for shard in POOL.shards():
        store.write(shard, np.stack([by_rank[image.rank] for image in shard.images]))
    return make_product(folder / name), by_rank


def proposals(scoring: Scoring) -> list[dict[str, Any]]:
    found = scoring.all_proposals(scoring.extents(scoring.pool.shards(), 1), 1)
    return sorted((row for table in found for row in table.to_pylist()), key=lambda row: int(row["image_rank"]))


@pytest.mark.parametrize("budget", [{"images_per_round": 2}, {"clicks_per_round": 50}])
def test_whole_images_are_scored_by_their_means(tmp_path: Path, budget: dict[str, float]) -> None:
    wanted = Acquisition(unit="image", fusion="g1", **budget)
    information, cells = maps(tmp_path, "information")
    cost, clicks = maps(tmp_path, "cost")
    scoring = Scoring(wanted, POOL, ledger(tmp_path / "ledger"), {"information": information, "cost": cost}, 0, 0)
    free = [image.rank for image in POOL.images if image.image_id not in TOUCHED]

    def scaled(values: dict[int, np.ndarray]) -> dict[int, float]:
        means = {rank: sum(map(float, values[rank].ravel())) / values[rank].size for rank in free}
        low, high = min(means.values()), max(means.values())
        return {rank: (mean - low) / (high - low) for rank, mean in means.items()}

    information_of, cost_of = scaled(cells), scaled(clicks)
    expected = [
        {
            "image_rank": rank,
            "y": 0,
            "x": 0,
            "score": float(np.float32(information_of[rank] / (1 + cost_of[rank]))),
            "spend": max(sum(map(float, clicks[rank].ravel())), 1.0)
            if "clicks_per_round" in budget
            else float(SIZES[rank][0] * SIZES[rank][1]),
        }
        for rank in free
    ]
    assert proposals(scoring) == expected


def test_a_window_takes_its_predicted_clicks_but_one_at_least(tmp_path: Path) -> None:
    wanted = Acquisition(unit="region", window_px=16, fusion="none", clicks_per_round=40)
    information, _ = maps(tmp_path, "information")
    cost, clicks = maps(tmp_path, "cost")
    scoring = Scoring(wanted, POOL, ledger(tmp_path / "ledger"), {"information": information, "cost": cost}, 0, 0)
    found = proposals(scoring)
    for row in found:
        y, x = row["y"] // 8, row["x"] // 8
        assert row["spend"] == max(float(clicks[row["image_rank"]][y : y + 2, x : x + 2].sum(dtype=np.float64)), 1.0)
    assert {row["spend"] == 1.0 for row in found} == {True, False}
