"""What predicted classes, noise and limits make of scores and queries, against plain loops over every region."""

from pathlib import Path
from typing import Any

import naive
import naive_classes
import numpy as np
import pytest
from made_pools import pool_of

from cereals_core.acquisition_settings import Acquisition
from cereals_core.grid import map_shape
from cereals_core.information import quantise
from cereals_core.seeding import rng
from tasks.region_maps import Regions
from tasks.scoring import Proposing, best_queries
from tasks.store import tables
from tasks.store.layout import MAPS
from tasks.store.ledger import Ledger
from tasks.store.maps import MapStore
from tasks.store.products import Product

POOL, WINDOW, CLASSES, SEED, ROUND = pool_of([(32, 40), (40, 48), (32, 40), (32, 40)], 2), 2, 3, 5, 3
TOUCHED = {"image_id": "001", "y": 8, "x": 16, "height": 16, "width": 8}
"""The one box that is labelled."""
Values = dict[tuple[int, int, int], float]
"""By image rank and position."""


def drawn(name: str) -> dict[int, np.ndarray]:
    """Made maps of all images, by rank."""
    maps = {}
    for image in POOL.images:
        stream, shape = rng(0, name, image.rank), map_shape(image.height, image.width)
        values = stream.choice(CLASSES, shape, p=[0.7, 0.2, 0.1]) if name == "classes" else stream.random(shape)
        maps[image.rank] = quantise(values.astype(np.float32))
    return maps


def stored(folder: Path, name: str, **facts: Any) -> Product:
    maps, store = drawn(name), MapStore.create(folder / name / MAPS, POOL)
    for shard in POOL.shards():
        store.write(shard, np.stack([maps[image.rank] for image in shard.images]))
    return Product(folder / name, "", "", "", 0.0, 0, facts=facts)


def cells_of_classes() -> list[int]:
    every = np.concatenate([classes.ravel() for classes in drawn("classes").values()])
    return np.bincount(every.astype(int), minlength=CLASSES).tolist()


def proposing(folder: Path, **keys: Any) -> Proposing:
    wanted = Acquisition(**{"window_px": 8 * WINDOW, "information": "entropy", "images_per_round": 2, **keys})
    (folder / "ledger").mkdir()
    tables.LEDGER.write(folder / "ledger", [{"round": -1, "rank": 0, **TOUCHED, "vertices": 1.0}])
    ledger = Ledger(Product(folder / "ledger", "", "", "", 0.0, 0))
    maps = {name: stored(folder, name) for name in ("information", "cost")}
    maps["classes"] = stored(folder, "classes", cells=cells_of_classes())
    regions = Regions(wanted, POOL, ledger, maps, SEED, ROUND)
    return Proposing(regions, regions.scales())


def sums_of(maps: dict[int, np.ndarray]) -> Values:
    """Sums over every region that may be asked for."""
    found = {}
    for image in POOL.images:
        labelled = np.zeros(map_shape(image.height, image.width), bool)
        if image.image_id == TOUCHED["image_id"]:
            labelled[1:3, 2:3] = True
        free = naive.candidates(labelled, WINDOW)
        found |= {
            (image.rank, *at): value for at, value in naive.window_sums(maps[image.rank], WINDOW).items() if free[at]
        }
    return found


def region(maps: dict[int, np.ndarray], key: tuple[int, int, int]) -> list[list[int]]:
    rank, y, x = key
    return maps[rank][y : y + WINDOW, x : x + WINDOW].astype(int).tolist()


def scaled(values: Values) -> dict[tuple[int, int, int], np.float32]:
    return dict(zip(values, naive.scale([np.float32(each) for each in values.values()]), strict=True))


def scores_of(made: Proposing) -> Values:
    return {
        (image.rank, y, x): scores[y, x]
        for image, scores in made.scores(POOL.shards())
        for y, x in np.ndindex(scores.shape)
        if scores[y, x] > -np.inf
    }


def test_information_is_weighted_by_the_share_of_the_predicted_class(tmp_path: Path) -> None:
    found = scores_of(proposing(tmp_path, cost="none", fusion="none", class_weight=12))
    cells, classes = cells_of_classes(), drawn("classes")
    weighted = {
        rank: quantise(naive_classes.weighted(values, classes[rank], cells, 12).astype(np.float32))
        for rank, values in drawn("information").items()
    }
    expected = scaled(sums_of(weighted))
    assert found.keys() == expected.keys()
    for key, score in expected.items():
        assert found[key] == pytest.approx(score, abs=2e-3)


@pytest.mark.parametrize("fusion", ["g1", "per_click"])
def test_the_price_of_a_region_is_a_part_of_its_cost(tmp_path: Path, fusion: str) -> None:
    made = proposing(tmp_path, cost="learned", fusion=fusion, region_price=True)
    classes, clicks = drawn("classes"), sums_of(drawn("cost"))
    costs = {key: 1 + 1.5 * naive.naive_crossings(region(classes, key)) + value for key, value in clicks.items()}
    information, cost = scaled(sums_of(drawn("information"))), scaled(costs)
    found = scores_of(made)
    assert found.keys() == cost.keys()
    for key, score in found.items():
        assert score == pytest.approx(naive.fuse(fusion, information[key], cost[key], 0.5), rel=1e-5)
    for row in made.all().to_pylist():  # what is predicted, and spent, are vertices all the same
        key = (row["image_rank"], row["y"] // 8, row["x"] // 8)
        assert row["predicted_clicks"] == pytest.approx(clicks[key], rel=1e-5)
        assert row["predicted_class"] == region(classes, key)[WINDOW // 2][WINDOW // 2]


def test_noise_fades_and_is_the_seeds(tmp_path: Path) -> None:
    made = proposing(tmp_path, cost="none", fusion="none", noise=2.0)
    information = scaled(sums_of(drawn("information")))
    for image, scores in made.scores(POOL.shards()):
        noise = rng(SEED, "noise", ROUND, image.image_id).gumbel(size=scores.shape)
        for y, x in np.ndindex(scores.shape):
            if scores[y, x] > -np.inf:
                share = max(float(information[image.rank, y, x]), float(np.finfo(np.float32).tiny))
                assert scores[y, x] == pytest.approx(np.log(share) + 2.0 / 4 * noise[y, x], rel=1e-5)


def test_regions_are_drawn_by_the_share_of_their_class(tmp_path: Path) -> None:
    made = proposing(tmp_path, information="random_by_class", cost="none", fusion="none")
    cells, classes = cells_of_classes(), drawn("classes")
    for image, scores in made.scores(POOL.shards()):
        uniform = rng(SEED, "random-regions", ROUND, image.image_id).random(scores.shape, np.float32)
        for y, x in np.ndindex(scores.shape):
            share = cells[region(classes, (image.rank, y, x))[WINDOW // 2][WINDOW // 2]] / sum(cells)
            if scores[y, x] > -np.inf:
                assert scores[y, x] == pytest.approx(np.log1p(-float(uniform[y, x])) * share, rel=1e-5)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("limit", [None, 1])
def test_queries_by_class_and_by_image(tmp_path: Path, share: float, limit: int | None) -> None:
    made = proposing(tmp_path, fusion="g1", class_share=share, regions_per_image=limit)
    classes, rows = drawn("classes"), list[dict[str, float]]()
    for image, scores in made.scores(POOL.shards()):
        for y, x in naive.suppress(scores, WINDOW)[:limit]:
            middle = region(classes, (image.rank, y, x))[WINDOW // 2][WINDOW // 2]
            place = {"image_rank": image.rank, "y": y * 8, "x": x * 8, "class": middle, "spend": 256.0}
            rows.append({**place, "score": float(scores[y, x])})
    expected = [rows[index] for index in naive_classes.best_within_classes(rows, made.budget.amount, share)]
    asked = best_queries(made.wanted, POOL, made.all())
    found = [(int(query["image_id"]), query["y"], query["x"]) for query in asked]
    assert found == [(row["image_rank"], row["y"], row["x"]) for row in expected]
    assert limit is None or max(np.bincount([rank for rank, _, _ in found])) == 1
