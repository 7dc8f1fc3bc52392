"""How long what is left of a campaign takes: by what manifests say of stages that ran, its own or those of a trial."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median

import torch

from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.forecast.needs import uses_cuda
from tasks.pages.wording import share
from tasks.running.prefetch import THREADS
from tasks.running.stage import Stage
from tasks.running.workers import MANY_BATCHES
from tasks.stages import runs_of
from tasks.store.layout import Campaign
from tasks.store.pool import SHARDS_A_BATCH
from tasks.store.products import Product, recorded

MUCH = 0.4
"""A stage with such a share of the time is named."""


@dataclass(frozen=True)
class StageTime:
    """What is left of a stage: its work in a round, the seconds of each round to come, and where they are from.

    `unit_s`: seconds of one unit of its work, 0 if it counts none.
    """

    stage: Stage
    units: float
    rounds_s: tuple[float, ...]
    is_recorded: bool
    unit_s: float = 0.0

    @property
    def total_s(self) -> float:
        """Seconds of all rounds to come."""
        return sum(self.rounds_s)

    @property
    def round_s(self) -> float:
        """Seconds of a round, on average."""
        return self.total_s / len(self.rounds_s)


@dataclass(frozen=True)
class Pace:
    """Seconds of a stage: whatever it works on, and for each unit of its work."""

    fixed_s: float
    unit_s: float


class Paces:
    """The pace of stages by the products that they left, `made`, with their rounds.

    `scale`: pixels of an image to come for each pixel of one that they worked on.
    """

    def __init__(self, made: Iterable[tuple[int | None, Product]], scale: float = 1.0) -> None:
        self._found: dict[str, list[tuple[int, Pace]]] = defaultdict(list)
        for number, product in made:
            units, units_s = product.facts.get("units", 0), product.facts.get("units_s", 0.0)
            pace = Pace(max(product.elapsed_s - units_s, 0.0), scale * units_s / units if units else 0.0)
            self._found[product.stage].append((number or 0, pace))

    def of(self, stage: Stage, number: int) -> Pace | None:
        """Return the median pace of a stage: in round 0 as it was there, in others as in those after it, if known."""
        found = self._found.get(stage.name, [])
        like = [pace for other, pace in found if (other == 0) == (number == 0)] or [pace for _, pace in found]
        return Pace(median(each.fixed_s for each in like), median(each.unit_s for each in like)) if like else None


def to_come(campaign: Campaign, finished: int) -> list[tuple[Stage, list[int | None]]]:
    """List the stages that are left after so many finished rounds, each with its rounds."""
    left = [
        (stage, number)
        for stage, number in runs_of(campaign.settings, finished)
        if recorded(campaign.stage(stage.name, number)) is None
    ]
    return [(stage, [number for _, number in runs]) for stage, runs in groupby(left, key=lambda run: run[0])]


def times(
    left: Iterable[tuple[Stage, Sequence[int | None]]], load: Workload, recorded: Paces, tried: Paces | None
) -> list[StageTime]:
    """Tell the time of each stage that is left by its own record, else by a trial; one that has neither is absent."""
    found = []
    for stage, rounds in left:
        numbers = [number or 0 for number in rounds]
        is_recorded = recorded.of(stage, 0) is not None
        paces = recorded if is_recorded else tried
        known = [paces.of(stage, number) for number in numbers] if paces else []
        units = [stage.takes.units(load, number) for number in numbers]
        lanes = 1 if is_recorded else _lanes(stage, load)
        rounds_s = [
            pace.fixed_s + pace.unit_s * count / lanes
            for pace, count in zip(known, units, strict=False)
            if pace is not None
        ]
        if rounds_s:
            unit_s = max(pace.unit_s for pace in known if pace is not None)
            found.append(StageTime(stage, sum(units) / len(units), tuple(rounds_s), is_recorded, unit_s))
    return found


def _lanes(stage: Stage, load: Workload) -> int:
    """Count workers, or cores of this machine, that share a stage's work, where a trial had one."""
    compute = load.settings.compute
    if stage.where != "shards":
        return 1
    if stage.gpu:
        return max(torch.cuda.device_count(), 1) if uses_cuda(load.settings) and compute.cluster != "none" else 1
    is_large = load.images >= compute.shard_images * SHARDS_A_BATCH * MANY_BATCHES
    return len(os.sched_getaffinity(0)) if is_large else 1


def advice(settings: CampaignSettings, found: Sequence[StageTime], image_s: float, on_device: bool) -> str:
    """Say what takes most of the time, and what would shorten it; empty if no stage stands out.

    `image_s`: seconds of reading an image.
    """
    total_s = sum(each.total_s for each in found)
    most = max(found, key=lambda each: each.total_s, default=None)
    if most is None or most.total_s < MUCH * total_s:
        return ""
    said = f"{most.stage.name} takes {share(most.total_s, total_s)} of the time"
    if most.stage.gpu and most.stage.takes.unit == "image" and image_s / THREADS > most.unit_s / 2:
        return f"{said}, and waits for images to be read more than for its network"
    remedies = [most.stage.takes.faster(settings)]
    if most.stage.gpu and not on_device:
        remedies.append("run it where there is a CUDA device")
    told = " or ".join(filter(None, remedies))
    return f"{said}; {told}" if told else said
