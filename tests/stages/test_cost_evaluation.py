"""The stage evaluate-cost on a few drawn streets: what it writes, what it may see, and what the report makes of it."""

import math
from pathlib import Path
from typing import Any

import cv2
import naive
import numpy as np
import pytest
import torch
from one_image import OneByOne
from small_campaign import small_settings

from cereals_core.clicks import region_cost
from cereals_core.data_settings import Data
from cereals_core.datasets import open_truth
from cereals_core.datasets.base import Dataset
from cereals_core.grid import Box
from cereals_core.models.build import build_network
from cereals_core.prediction import Predictor
from cereals_core.settings import CampaignSettings
from tasks import cost_evaluation, reporting
from tasks.cost_evaluation import evaluate_cost
from tasks.running import truths
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.history import maps_of
from tasks.store.layout import WEIGHTS, Campaign
from tasks.store.ledger import box_of
from tasks.store.products import Product, Recipe, find_product, making
from tasks.training import load_model

pytestmark = pytest.mark.usefixtures("one_thread")
Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _pool_keeps_its_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(data: Data, split: Any) -> Dataset:
        assert split == "eval", "the pool's truth was opened"
        return open_truth(data, split)

    monkeypatch.setattr(truths, "open_truth", opened)
    truths.evaluation_truth.cache_clear()


def ledger_rows(settings: CampaignSettings, boxes: list[tuple[int, int, Box]]) -> Rows:
    """Rows of a ledger from (round, image index, box), with the true costs and made-up predictions."""
    dataset = open_truth(settings.data, "pool")
    rows = []
    for rank, (number, index, box) in enumerate(boxes):
        cost = region_cost(dataset.truth(dataset.image_ids[index]), box)
        predicted = None if number < 0 else float(10 - rank)
        named = {"round": number, "rank": rank, "image_id": dataset.image_ids[index], "predicted_clicks": predicted}
        rows.append({**named, **box._asdict(), **vars(cost)})
    return rows


def written(folder: Path, rows: Rows) -> Product:
    folder.mkdir(parents=True)
    tables.LEDGER.write(folder, rows)
    return Product(folder, folder.name, "", "oracle-query", 0.0, 0)


WHOLE = Box(0, 0, 60, 100)
SEED: list[tuple[int, int, Box]] = [(-1, 0, WHOLE), (-1, 1, WHOLE)]
ROUND_0 = [(0, 2, Box(0, 8, 24, 24)), (0, 2, Box(32, 48, 24, 24)), (0, 5, Box(16, 0, 24, 24))]
ROUND_1 = [(1, 2, Box(32, 8, 24, 24)), (1, 7, Box(8, 72, 24, 24))]


def cost_model(settings: CampaignSettings, folder: Path) -> Product:
    model = build_network(settings.model, 1)
    model.initialise(torch.Generator().manual_seed(3))
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / WEIGHTS)
    return Product(folder, "cost", "", "train-cost", 0.0, 0)


def evaluated(
    settings: CampaignSettings, tmp_path: Path, number: int, before: list[Any], asked: list[Any]
) -> tuple[Campaign, Rows, Rows]:
    """Run the stage for one round; the campaign, and the rows of regions and of agreement."""
    campaign = Campaign(settings.path, settings)
    inputs = {
        "pool": Product(tmp_path, "pool", "", "pool", 0.0, 0, facts={"pixels": 10 * 60 * 100}),
        "ledger": written(tmp_path / f"before-{number}", ledger_rows(settings, before)),
        "answers": written(tmp_path / f"after-{number}", ledger_rows(settings, [*before, *asked])),
        "model": cost_model(settings, tmp_path / f"model-{number}"),
    }
    recipe = evaluate_cost.recipe(campaign, number, inputs)
    with making(campaign.stage("evaluate-cost", number), recipe) as (folder, facts):
        evaluate_cost.body(Work(evaluate_cost.name, campaign, number, folder, facts), **inputs)
    product = find_product(campaign.stage("evaluate-cost", number), recipe)
    assert product is not None
    regions = tables.COST_REGIONS.read(product).to_pylist()
    return campaign, regions, tables.COST_AGREEMENT.read(product).to_pylist()


def naive_edges(image: np.ndarray, box: Box) -> float:
    return float(naive.edge_map(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[box.slices].sum())


def of_sample(rows: Rows, sample: str) -> Rows:
    return [row for row in rows if row["sample"] == sample]


def test_queried_regions_are_those_of_the_round(small: CampaignSettings, tmp_path: Path) -> None:
    _, regions, _ = evaluated(small, tmp_path, 1, [*SEED, *ROUND_0], ROUND_1)
    queried = of_sample(regions, "queried")
    before, asked = ledger_rows(small, [*SEED, *ROUND_0]), ledger_rows(small, [*SEED, *ROUND_0, *ROUND_1])[-2:]
    assert [(row["image_id"], box_of(row)) for row in queried] == [(row["image_id"], box_of(row)) for row in asked]
    assert [row["true"] for row in queried] == [row["vertices"] for row in asked]
    assert [row["learned"] for row in queried] == [5, 4]
    # The baselines by plain sums over everything labelled before: two images of 60 x 100 px and three regions.
    dataset = open_truth(small.data, "pool")
    clicks = sum(row["vertices"] for row in before)
    edges = sum(naive_edges(dataset.image(row["image_id"]), box_of(row)) for row in before)
    for row in queried:
        assert row["constant"] == pytest.approx(24 * 24 * clicks / (2 * 6000 + 3 * 576))
        by_edges = naive_edges(dataset.image(row["image_id"]), box_of(row)) * clicks / edges
        assert row["edges"] == pytest.approx(by_edges, rel=1e-5)


def floored(settings: CampaignSettings, predicted: float, box: Box) -> float:
    """At least a tenth of what as many pixels of the seed set have cost."""
    clicks = sum(row["vertices"] for row in ledger_rows(settings, SEED))
    return max(predicted, 0.1 * clicks / (2 * WHOLE.pixels) * box.pixels)


def test_random_regions_are_windows_of_the_evaluation_split(small: CampaignSettings, tmp_path: Path) -> None:
    _, regions, _ = evaluated(small, tmp_path, 0, SEED, ROUND_0)
    rows, dataset = of_sample(regions, "random"), open_truth(small.data, "eval")
    assert [row["image_id"] for row in rows] == [image_id for image_id in dataset.image_ids for _ in range(4)]
    predictor = OneByOne(Predictor(load_model(small, 1, Product(tmp_path / "model-0", "", "", "", 0.0, 0))))
    for row in rows:
        y, x, height, width = box = box_of(row)
        assert (height, width) == (24, 24)
        assert row["true"] == region_cost(dataset.truth(row["image_id"]), box).vertices
        cells = predictor.clicks(dataset.image(row["image_id"]))[y // 8 : y // 8 + 3, x // 8 : x // 8 + 3]
        assert row["learned"] == pytest.approx(floored(small, math.fsum(cells.ravel().tolist()), box))


def test_random_regions_are_the_same_in_every_round(small: CampaignSettings, tmp_path: Path) -> None:
    drawn = []
    for number, before, asked in ((0, SEED, ROUND_0), (1, [*SEED, *ROUND_0], ROUND_1)):
        _, regions, _ = evaluated(small, tmp_path, number, before, asked)
        drawn.append([(row["image_id"], box_of(row), row["true"]) for row in of_sample(regions, "random")])
    assert drawn[0] == drawn[1]
    other = small.model_copy(update={"seed": 8, "folder": tmp_path / "seed-8"})
    _, regions, _ = evaluated(other, tmp_path / "other", 0, SEED, ROUND_0)
    assert drawn[0] != [(row["image_id"], box_of(row), row["true"]) for row in of_sample(regions, "random")]


def test_there_are_at_most_so_many(small: CampaignSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost_evaluation, "MOST_RANDOM_REGIONS", 9)
    monkeypatch.setattr(cost_evaluation, "MOST_LABELLED_REGIONS", 1)
    _, regions, _ = evaluated(small, tmp_path, 0, SEED, ROUND_0)
    rows = of_sample(regions, "random")
    assert len(rows) == 8
    assert len({row["image_id"] for row in rows}) == 2
    # One of the two images of the seed set says what an edge is worth.
    dataset, worth = open_truth(small.data, "pool"), set()
    for row in ledger_rows(small, SEED):
        worth.add(round(row["vertices"] / naive_edges(dataset.image(row["image_id"]), WHOLE), 7))
    first = of_sample(regions, "queried")[0]
    assert round(first["edges"] / naive_edges(dataset.image(first["image_id"]), box_of(first)), 7) in worth


def test_whole_images_are_compared_as_they_are(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "campaign", unit="image")
    _, regions, agreement = evaluated(settings, tmp_path, 0, SEED, [(0, 3, WHOLE), (0, 4, WHOLE)])
    assert {box_of(row) for row in regions} == {WHOLE}
    assert [len(of_sample(regions, sample)) for sample in ("queried", "random")] == [2, 3]
    dataset = open_truth(settings.data, "eval")
    predictor = OneByOne(Predictor(load_model(settings, 1, Product(tmp_path / "model-0", "", "", "", 0.0, 0))))
    for row in of_sample(regions, "random"):  # cells that the image's edge cuts count as they do in a query
        cells = predictor.clicks(dataset.image(row["image_id"]))
        assert cells.shape == (8, 13)
        assert row["learned"] == pytest.approx(floored(settings, math.fsum(cells.ravel().tolist()), WHOLE))
    assert [row["regions"] for row in agreement] == [2, 2, 2, 3, 3, 3]


def test_a_window_that_fits_no_evaluation_image_leaves_that_sample_empty(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "campaign", window_px=64)
    _, regions, agreement = evaluated(settings, tmp_path, 0, SEED, ROUND_0)
    assert of_sample(regions, "random") == []
    assert [row["regions"] for row in agreement] == [3, 3, 3, 0, 0, 0]
    assert math.isnan(agreement[-1]["sum_ratio"])


def test_agreement_is_that_of_the_regions(small: CampaignSettings, tmp_path: Path) -> None:
    campaign, regions, agreement = evaluated(small, tmp_path, 0, SEED, ROUND_0)
    names = [(row["sample"], row["predictor"]) for row in agreement]
    assert names == [(sample, each) for sample in ("queried", "random") for each in ("learned", "constant", "edges")]
    for row in agreement:
        rows = of_sample(regions, row["sample"])
        errors = [each[row["predictor"]] - each["true"] for each in rows]
        assert row["bias"] == pytest.approx(sum(errors) / len(rows))
        assert row["mean_absolute_error"] == pytest.approx(sum(map(abs, errors)) / len(rows))
        assert row["sum_ratio"] == pytest.approx(sum(e[row["predictor"]] for e in rows) / sum(e["true"] for e in rows))
    product = find_product(campaign.stage("evaluate-cost", 0))
    assert product is not None
    assert product.facts["regions"] == len(regions) == 15
    assert product.facts["spearman_random"] == agreement[3]["spearman"]
    np.testing.assert_equal(product.facts["spearman_queried"], agreement[0]["spearman"])


def test_the_report_reads_the_samples(small: CampaignSettings, tmp_path: Path) -> None:
    campaign, regions, _ = evaluated(small, tmp_path, 0, SEED, ROUND_0)
    samples = reporting._cost_samples(campaign, 0)
    assert [sample.name for sample in samples] == ["queried", "random"]
    for sample in samples:
        rows = of_sample(regions, sample.name)
        assert sample.true.tolist() == [row["true"] for row in rows]
        assert sample.predicted["edges"].tolist() == [row["edges"] for row in rows]
    assert reporting._cost_samples(campaign, 1) == []


def test_true_cost_maps_belong_to_no_round(tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "campaign", cost="true")
    campaign = Campaign(settings.path, settings)
    campaign.round(3).mkdir(parents=True)
    folders = {"information": campaign.stage("info-map", 3), "cost": campaign.stage("true-cost-map", None)}
    for folder in folders.values():
        with making(folder, Recipe(folder.name, 1, {}, {})):
            pass
    found = maps_of(campaign, 3)
    assert {name: product.folder for name, product in found.items() if product} == folders
