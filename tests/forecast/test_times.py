"""Times of what is to come, computed by hand from made manifests."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.cost_evaluation import evaluate_cost
from tasks.evaluation import evaluate
from tasks.forecast.times import Paces, StageTime, advice, times, to_come
from tasks.mapping import info_map
from tasks.pool import check_pool
from tasks.running.stage import Stage
from tasks.running.workers import MANY_BATCHES
from tasks.selection import nms
from tasks.store.layout import Campaign
from tasks.store.pool import SHARDS_A_BATCH
from tasks.store.products import Product
from tasks.training import train_cost, train_seg


def load_of(settings: CampaignSettings, images: int = 10) -> Workload:
    return Workload(settings, [(60, 100)] * images, eval_images=3, classes=5)


def made(stage: Stage, elapsed_s: float, units: int = 0, units_s: float = 0.0) -> Product:
    facts = {"units": units, "units_s": units_s} if units else {}
    return Product(Path(), "", "", stage.name, elapsed_s, 0, facts=facts)


def seconds_of(
    settings: CampaignSettings, stage: Stage, found: Iterable[tuple[int | None, Product]]
) -> tuple[float, ...]:
    left = [(each, rounds) for each, rounds in to_come(Campaign(settings.path, settings), 0) if each is stage]
    (told,) = times(left, load_of(settings), Paces([]), Paces(found))
    return told.rounds_s


def test_times_of_two_rounds_by_hand(small: CampaignSettings) -> None:
    def tried(stage: Stage) -> tuple[float, ...]:
        """Of a stage that took 1 s, and 0.5 s for each of 4 units."""
        return seconds_of(small, stage, [(0, made(stage, 3.0, 4, 2.0))])

    assert tried(train_seg) == (1 + 6, 1 + 10, 1 + 10)  # 12, 20 and 20 steps
    assert tried(train_cost) == (1 + 6, 1 + 10)
    assert tried(evaluate) == (1 + 1.5, 1 + 1.5, 1 + 1.5)
    assert tried(info_map) == (1 + 4, 1 + 4)  # the seed set has left the pool
    assert tried(check_pool) == (1 + 6.5,)
    assert tried(evaluate_cost) == (1 + 6.5, 1 + 6.5)  # ten images with edges, three of the evaluation split


def test_later_rounds_are_as_later_rounds_were(small: CampaignSettings) -> None:
    first, second, third = (made(train_seg, 2.0, 4, elapsed_s) for elapsed_s in (2.0, 1.0, 1.5))
    assert seconds_of(small, train_seg, [(0, first), (1, second), (2, third)]) == pytest.approx(
        (12 * 0.5, 0.75 + 20 * 0.3125, 0.75 + 20 * 0.3125)
    )


def test_larger_images_take_longer_in_proportion() -> None:
    pace = Paces([(0, made(info_map, 3.0, 4, 2.0))], scale=3.0).of(info_map, 0)
    assert pace is not None
    assert (pace.fixed_s, pace.unit_s) == (1.0, 1.5)


def test_what_is_recorded_goes_before_what_was_tried(small: CampaignSettings) -> None:
    recorded, tried = Paces([(0, made(nms, 1.0))]), Paces([(0, made(nms, 5.0)), (0, made(evaluate, 7.0))])
    told = times([(nms, [0, 1]), (evaluate, [0]), (train_seg, [0])], load_of(small), recorded, tried)
    assert [(each.stage, each.rounds_s, each.is_recorded) for each in told] == [
        (nms, (1.0, 1.0), True),
        (evaluate, (7.0,), False),
    ]


def test_large_pools_alone_are_selected_from_by_all_cores(small: CampaignSettings) -> None:
    tried = Paces([(0, made(nms, 1.0, 1, 1.0))])
    large = 4 * SHARDS_A_BATCH * MANY_BATCHES
    (less,), (more,) = (times([(nms, [0])], load_of(small, count), Paces([]), tried) for count in (large - 1, large))
    assert less.total_s == large - 1
    assert more.total_s == large / len(os.sched_getaffinity(0))


def test_what_takes_most_of_the_time_is_told_with_what_would_help(small: CampaignSettings) -> None:
    little, much = StageTime(nms, 1, (1.0,), False), StageTime(train_seg, 1, (2.0, 1.0), False)
    said = advice(small, [little, much], image_s=0.0, on_device=False)
    assert said == (
        "train-seg takes 75.0 % of the time; lower training.max_steps = 12 or run it where there is a CUDA device"
    )
    assert "CUDA" not in advice(small, [little, much], image_s=0.0, on_device=True)
    mapped = StageTime(info_map, 1, (3.0,), False, unit_s=0.1)
    assert "waits for images to be read" in advice(small, [little, mapped], image_s=1.0, on_device=True)
    assert "waits" not in advice(small, [little, mapped], image_s=0.01, on_device=True)
    even = [little, *(StageTime(stage, 1, (1.0,), False) for stage in (evaluate, info_map))]
    assert advice(small, even, image_s=0.0, on_device=True) == ""
