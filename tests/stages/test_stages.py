"""All stages: what each says of itself."""

from itertools import pairwise

import pytest
from small_campaign import frozen_settings, small_settings

from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.running.stage import Stage
from tasks.stages import FIRST, ROUND, runs_of
from tasks.store.history import products_made
from tasks.store.layout import Campaign

STAGES = [*FIRST, *ROUND]
FACTS = {
    "pretrained": ({"parameters": 1200, "source": "vgg16.pth"}, "1,200 parameters of vgg16.pth"),
    "features": ({"images": 2, "image_bytes": 300_000}, "2 images, 300.0 kB each"),
    "pool": ({"images": 1000, "eval_images": 3}, "1,000 images to ask of, 3 to evaluate on"),
    "seed-set": ({"images": 1, "clicks": 12.5}, "1 image labelled in full, 12.5 clicks"),
    "true-cost-map": ({"images": 2}, "2 images"),
    "train-seg": (
        {"images": 1, "epochs": 7, "steps": 1210, "loss": 0.75},
        "1 image, 7 epochs, 1,210 steps, loss 0.7500 nats",
    ),
    "train-cost": (
        {"images": 2, "epochs": 7, "steps": 1, "loss": 2},
        "2 images, 7 epochs, 1 step, loss 2.0000 clicks²",
    ),
    "evaluate": ({"miou": 0.12345}, "mIoU 0.1235"),
    "info-map": ({"images": 2}, "2 images"),
    "cost-map": ({"images": 2}, "2 images"),
    "class-map": ({"images": 2}, "2 images"),
    "region-fusion": ({"candidates": 1000}, "1,000 candidate windows"),
    "nms": ({"proposals": 1000}, "1,000 proposals"),
    "oracle-query": ({"regions": 10, "images": 3, "clicks": 7.5}, "10 regions in 3 images, 7.5 clicks"),
    "evaluate-cost": (
        {"spearman_queried": float("nan"), "spearman_random": 0.5},
        "rank correlation - queried, 0.50 random",
    ),
    "report": ({}, ""),
}


def test_places_are_those_of_the_list() -> None:
    assert [each.place for each in STAGES] == list(range(len(STAGES)))
    assert len({each.name for each in STAGES}) == len(STAGES)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_says_what_it_made(stage: Stage) -> None:
    facts, said = FACTS[stage.name]
    assert stage.note(facts) == said


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_what_a_stage_takes_does_not_shrink_with_the_pool(
    stage: Stage, small: CampaignSettings, tmp_path_factory: pytest.TempPathFactory
) -> None:
    if not stage.wanted(small):
        small = frozen_settings(tmp_path_factory.mktemp("frozen"))
    loads = [Workload(small, [(60, 100)] * images, eval_images=3, classes=5) for images in (3, 30, 300)]
    for few, many in pairwise(loads):
        assert stage.takes.units(few, 0) <= stage.takes.units(many, 0)
        assert stage.takes.disk_bytes(few, 0) <= stage.takes.disk_bytes(many, 0)
    assert all(value >= 0 for value in vars(stage.takes.memory(loads[0])).values())
    assert isinstance(stage.takes.lighter(small) + stage.takes.faster(small), str)


def test_a_campaign_runs_what_its_settings_want(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("campaign")
    settings = small_settings(folder, strategy="random-images", information="random")
    assert [(each.name, number) for each, number in runs_of(settings, first_round=1)] == [
        ("pool", None),
        ("seed-set", None),
        ("train-seg", 1),
        ("train-seg", 2),
        ("evaluate", 1),
        ("evaluate", 2),
        ("region-fusion", 1),
        ("nms", 1),
        ("oracle-query", 1),
        ("report", 1),
        ("report", 2),
    ]


def test_the_work_of_a_stage_is_what_was_told_before(finished: CampaignSettings) -> None:
    load = Workload(finished, [(60, 100)] * 10, eval_images=3, classes=5)
    by_name = {each.name: each for each in STAGES}
    for number, product in products_made(Campaign(finished.path, finished)):
        if "units" in product.facts:
            told = by_name[product.stage].takes.units(load, number or 0)
            assert product.facts["units"] <= told, product.stage
            assert 0 < product.facts["units_s"] <= product.elapsed_s
