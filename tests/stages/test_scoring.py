"""Proposals of whole images, and what queries take from budgets, against plain loops; windows are in round_twin."""

from pathlib import Path
from typing import Any

import naive
import numpy as np
import pytest
from made_pools import pool_of

from cereals_core.acquisition_settings import Acquisition
from cereals_core.grid import map_shape
from cereals_core.information import quantise
from cereals_core.seeding import rng
from cereals_core.strategies import Unit
from tasks.region_maps import Regions
from tasks.running import prefetch
from tasks.scoring import Proposing
from tasks.store import tables
from tasks.store.layout import MAPS
from tasks.store.ledger import Ledger
from tasks.store.maps import MapStore
from tasks.store.products import Product

READ = MapStore.read
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
    tables.LEDGER.write(folder, rows)
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


def regions(folder: Path, wanted: Acquisition) -> tuple[Regions, dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Regions of the pool, and its maps of information and cost."""
    information, cells = maps(folder, "information")
    cost, clicks = maps(folder, "cost")
    products = {"information": information, "cost": cost}
    return Regions(wanted, POOL, ledger(folder / "ledger"), products, 0, 0), cells, clicks


def proposals(found: Regions) -> list[dict[str, Any]]:
    rows = Proposing(found, found.scales()).all().to_pylist()
    return sorted(rows, key=lambda row: int(row["image_rank"]))


@pytest.mark.parametrize("budget", [{"images_per_round": 9}, {"clicks_per_round": 50}])
def test_whole_images_are_scored_by_their_means(tmp_path: Path, budget: dict[str, float]) -> None:
    wanted = Acquisition(unit="image", fusion="g1", **budget)
    found, cells, clicks = regions(tmp_path, wanted)
    free = [image.rank for image in POOL.images if image.image_id not in TOUCHED]

    def total(values: np.ndarray) -> np.float32:
        return np.float32(sum(map(float, values.ravel())))

    def scaled(values: dict[int, np.ndarray]) -> dict[int, np.float32]:
        means = [total(values[rank]) / np.float32(values[rank].size) for rank in free]
        return dict(zip(free, naive.scale(means), strict=True))

    information_of, cost_of = scaled(cells), scaled(clicks)
    least = 0.1 * 2 / (8 * 8 + 16 * 24)  # a tenth of the clicks that a labelled pixel has cost
    expected = [
        {
            "image_rank": rank,
            "y": 0,
            "x": 0,
            "score": naive.fuse("g1", information_of[rank], cost_of[rank], 0.5),
            "spend": max(total(clicks[rank]), least * SIZES[rank][0] * SIZES[rank][1], 1.0)
            if "clicks_per_round" in budget
            else SIZES[rank][0] * SIZES[rank][1],
            "information": total(cells[rank]),
            "predicted_clicks": max(total(clicks[rank]), least * SIZES[rank][0] * SIZES[rank][1]),
            "predicted_class": None,
        }
        for rank in free
    ]
    assert proposals(found) == expected


@pytest.mark.parametrize("past", [[], [(10.0, 25.0), (30.0, 35.0)], [(1.0, 500.0)], [(500.0, 1.0)]])
def test_a_window_takes_its_predicted_clicks_floored_and_corrected(
    tmp_path: Path, past: list[tuple[float, float]]
) -> None:
    """By past queries (predicted, true): of those regions 1.5 times as many clicks came, so each counts as that."""
    wanted = Acquisition(unit="region", window_px=16, fusion="none", clicks_per_round=40, cost="learned")
    made, _, clicks = regions(tmp_path, wanted)
    rows = [{"predicted_clicks": predicted, "vertices": true} for predicted, true in past]
    made.ledger.table = tables.LEDGER.of([*made.ledger.table.to_pylist(), *rows])
    all_true = 2.0 + sum(true for _, true in past)
    factor = sum(true for _, true in past) / sum(predicted for predicted, _ in past) if past else 1.0
    least = 0.1 * all_true / (8 * 8 + 16 * 24) * 16 * 16
    found = proposals(made)
    for row in found:
        y, x = row["y"] // 8, row["x"] // 8
        predicted = max(float(clicks[row["image_rank"]][y : y + 2, x : x + 2].sum(dtype=np.float64)), least)
        assert row["predicted_clicks"] == pytest.approx(predicted)
        assert row["spend"] == pytest.approx(max(predicted * min(max(factor, 0.1), 10), 1.0))
    assert len({row["predicted_clicks"] == pytest.approx(least) for row in found}) == 2 or all_true > 100


@pytest.mark.parametrize("images", [0.5, 1.5, 100])
def test_proposals_out_of_a_rounds_reach_are_left_out_and_no_others(tmp_path: Path, images: float) -> None:
    wanted = Acquisition(unit="region", window_px=8, fusion="g2", images_per_round=images)
    made = regions(tmp_path, wanted)[0]
    proposing = Proposing(made, made.scales())
    everything = sorted(
        (-float(scores[at]), at[0] * 8, at[1] * 8, image.rank)
        for image, scores in proposing.scores(POOL.shards())
        for at in naive.suppress(scores, 1)
    )
    found = [(-row["score"], row["y"], row["x"], row["image_rank"]) for row in proposing.all().to_pylist()]
    assert sorted(found) == everything[: proposing.budget.most_queries]
    again = proposing.all()  # as when a worker is lost: what was found then is out of reach sooner
    assert again.equals(Proposing(made, proposing.scales).all())


@pytest.mark.parametrize("unit", ["region", "image"])
@pytest.mark.parametrize("fusion", ["g1", "g2", "g3", "none"])
def test_no_region_of_an_image_exceeds_its_best_score(tmp_path: Path, unit: Unit, fusion: str) -> None:
    made = regions(tmp_path, Acquisition(unit=unit, window_px=8, fusion=fusion))[0]
    proposing = Proposing(made, made.scales())
    best = dict(enumerate(proposing.best))
    assert best.pop(3) == -np.inf  # labelled in full
    for image, scores in proposing.scores(POOL.shards()):
        assert scores.max(initial=-np.inf) <= best.get(image.rank, -np.inf)
    if fusion == "none":
        assert best == {i.rank: s.max() for i, s in proposing.scores(POOL.shards()) if i.rank in best}


def test_shards_that_can_hold_nothing_within_reach_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best image is looked at first; one query is all that is asked for, and only its shard is read."""
    made, cells, _ = regions(tmp_path, Acquisition(unit="image", fusion="none", images_per_round=1))
    monkeypatch.setattr(prefetch, "AHEAD", 0)
    proposing = Proposing(made, made.scales())
    read: list[int] = []
    monkeypatch.setattr(MapStore, "read", lambda store, shard: read.append(shard.index) or READ(store, shard))
    (best, *_) = proposing.shards()
    (row,) = proposing.all().to_pylist()
    means = {
        rank: float(cells[rank].mean(dtype=np.float64)) for rank in cells if POOL.images[rank].image_id not in TOUCHED
    }
    assert row["image_rank"] == max(means, key=lambda rank: means[rank])
    assert row["image_rank"] in {image.rank for image in best.images}
    assert read == [best.index] * 2


def test_extents_are_those_of_each_images_candidates(tmp_path: Path) -> None:
    made, cells, _ = regions(tmp_path, Acquisition(unit="region", window_px=8))
    table = made.scales().table
    assert table["candidates"].to_pylist() == [6, 11, 6, 0, 12, 6]
    for rank in (0, 2, 4, 5):
        height, width = (side // 8 for side in SIZES[rank])
        whole = cells[rank][:height, :width]
        assert table["information_low"][rank].as_py() == whole.min()
        assert table["information_high"][rank].as_py() == whole.max()
    assert table["cost_low"][3].as_py() == np.inf


def test_without_maps_there_is_nothing_to_scale(tmp_path: Path) -> None:
    wanted = Acquisition(information="random", cost="none", fusion="none", window_px=8)
    made = Regions(wanted, POOL, ledger(tmp_path / "ledger"), {"information": None, "cost": None}, 0, 0)
    scales = made.scales()
    assert (scales.extents, scales.candidates) == ({}, 41)
    assert scales.best_scores(wanted).tolist() == [np.inf, np.inf, np.inf, -np.inf, np.inf, np.inf]
