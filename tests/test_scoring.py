"""Proposals of whole images, and what queries take from budgets, against plain loops; windows are in round_twin."""

from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from test_maps import pool_of

from cereals_core.fusion import Extent
from cereals_core.grid import map_shape
from cereals_core.information import quantise
from cereals_core.seeding import rng
from cereals_core.settings import Acquisition
from tasks import tables
from tasks.labels import Ledger
from tasks.layout import LEDGER, MAPS
from tasks.maps import MapStore
from tasks.products import Product
from tasks.scoring import Scales, Scoring

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
    store = MapStore.create(folder / name / MAPS, POOL)
    for shard in POOL.shards():
        store.write(shard, np.stack([by_rank[image.rank] for image in shard.images]))
    return make_product(folder / name), by_rank


def proposals(scoring: Scoring) -> list[dict[str, Any]]:
    found = scoring.all_proposals(scoring.scales(scoring.pool.shards()))
    return sorted(found.to_pylist(), key=lambda row: int(row["image_rank"]))


@pytest.mark.parametrize("budget", [{"images_per_round": 9}, {"clicks_per_round": 50}])
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
            "information": sum(map(float, cells[rank].ravel())),
            "predicted_clicks": sum(map(float, clicks[rank].ravel())),
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
        predicted = float(clicks[row["image_rank"]][y : y + 2, x : x + 2].sum(dtype=np.float64))
        assert (row["spend"], row["predicted_clicks"]) == (max(predicted, 1.0), predicted)
    assert {row["spend"] == 1.0 for row in found} == {True, False}


@pytest.mark.parametrize("images", [0.5, 1.5, 100])
def test_proposals_out_of_a_rounds_reach_are_left_out_and_no_others(tmp_path: Path, images: float) -> None:
    wanted = Acquisition(unit="region", window_px=8, fusion="g2", images_per_round=images)
    products = {name: maps(tmp_path, name)[0] for name in ("information", "cost")}
    scoring = Scoring(wanted, POOL, ledger(tmp_path / "ledger"), dict(products), 0, 0)
    scales = scoring.scales(POOL.shards())
    everything = sorted(
        (-float(scores[at]), at[0] * 8, at[1] * 8, image.rank)
        for shard in POOL.shards()
        for image, scores in zip(shard.images, scoring.scores(scales, shard), strict=True)
        for at in naive.suppress(scores, 1)
    )
    found = [(-row["score"], row["y"], row["x"], row["image_rank"]) for row in proposals(scoring)]
    assert sorted(found) == everything[: scoring.budget.most_queries]
    again = scoring.all_proposals(scales)  # as when a worker is lost: what was found then is out of reach sooner
    fresh = Scoring(wanted, POOL, scoring.ledger, dict(products), 0, 0)
    assert again.equals(fresh.all_proposals(scales))


def test_scales_come_back_as_they_were(tmp_path: Path) -> None:
    scales = Scales({"information": Extent(0.1, 1 / 3), "cost": Extent(-np.inf, np.inf)}, 7)
    scales.write(tmp_path / "scales.json")
    assert Scales.read(tmp_path / "scales.json") == scales
