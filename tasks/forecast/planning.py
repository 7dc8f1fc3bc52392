"""How long a campaign takes: from what one image or step takes to what is left of each stage, in plain arithmetic.

Counts are those that the settings allow at most: a training may converge before `training.max_steps`, and a campaign
may end before `stop.rounds`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from statistics import median

from cereals_core.settings import CampaignSettings
from tasks.cost_evaluation import MOST_LABELLED_REGIONS, MOST_RANDOM_REGIONS, WINDOWS_AN_IMAGE
from tasks.forecast.outlook import Outlook
from tasks.pages.wording import share
from tasks.store.layout import Campaign
from tasks.store.products import recorded
from tasks.telling.metrics import Made

FIRST_STAGES = ("pool", "seed-set", "true-cost-map")
IN_LAST_ROUND = ("train-seg", "evaluate", "report")
"""Stages of the round that asks for nothing."""
TRAININGS = ("train-seg", "train-cost")
NETWORKS = (*TRAININGS, "evaluate", "info-map", "cost-map", "evaluate-cost")
UNITS = dict.fromkeys(TRAININGS, "step") | {"report": "page"}
"""What a stage does again and again; all others work on images."""
COUNTED = dict.fromkeys(TRAININGS, "steps") | dict.fromkeys(("info-map", "cost-map", "oracle-query"), "images")
"""Facts in which stages left how many units they worked on."""
MUCH = 0.4
"""A stage with such a share of the time is named."""

ToCome = Mapping[str, Sequence[int | None]]
"""Rounds in which each stage is still to run, in the order of running; None before the first round."""


@dataclass(frozen=True)
class Rates:
    """What a machine takes, measured on images of about mean size: seconds, and bytes a second of its disk.

    `unit_s`: an image of each stage as it is read, worked on and counted; a page; or for trainings, an image of a step
    labelled in full, without reading. `part_s`: the same where only regions are labelled. `edges_s`: an image of
    evaluate-cost whose edges are compared. `image_s`: reading an image in one of `readers` threads. `kept_bytes`:
    decoded images that a training keeps. `waiting`: stages that wait for images longer than they work on them.
    """

    unit_s: Mapping[str, float]
    part_s: Mapping[str, float] = field(default_factory=dict)
    edges_s: float = 0.0
    image_s: float = 0.0
    readers: int = 2
    kept_bytes: float = inf
    write_bytes_s: float = inf
    read_bytes_s: float = inf
    waiting: frozenset[str] = frozenset()


@dataclass(frozen=True)
class StageTime:
    """What is left of a stage: its work in a round, the seconds of each round to come, and where they are from.

    `waits`: whether it waits for images to be read rather than for its network.
    """

    stage: str
    units: float
    rounds_s: tuple[float, ...]
    is_recorded: bool
    waits: bool = False

    @property
    def total_s(self) -> float:
        """Seconds of all rounds to come."""
        return sum(self.rounds_s)

    @property
    def round_s(self) -> float:
        """Seconds of a round, on average."""
        return self.total_s / len(self.rounds_s)


def to_come(campaign: Campaign, finished: int) -> dict[str, list[int | None]]:
    """What is left after so many finished rounds; stages without anything left are absent."""
    first = [name for name in FIRST_STAGES if name != "true-cost-map" or campaign.settings.acquisition.cost == "true"]
    last = campaign.settings.stop.rounds
    runs = [(name, None) for name in first] + [
        (name, number)
        for name in campaign.round_stages
        for number in range(finished, last + 1)
        if number < last or name in IN_LAST_ROUND
    ]
    left: dict[str, list[int | None]] = defaultdict(list)
    for name, number in runs:
        if recorded(campaign.stage(name, number)) is None:
            left[name].append(number)
    return dict(left)


class Workload:
    """What the stages of a campaign have to do at most, on a pool and so many images for evaluation."""

    def __init__(self, outlook: Outlook, eval_images: int) -> None:
        self.outlook, self.settings, self.eval_images = outlook, outlook.settings, eval_images

    @property
    def queries(self) -> int:
        """Queries of a round."""
        return self.outlook.budget.most_queries

    def labelled(self, number: int) -> int:
        """Images that a round trains on."""
        return self.outlook.touched_images(number)

    def epochs(self, number: int) -> int:
        """Epochs of a training of a round, the last being the one in which `max_steps` is reached."""
        training = self.settings.training
        return ceil(training.max_steps / ceil(self.labelled(number) / training.batch_images))

    def steps(self, number: int) -> int:
        """Training steps of a round, in whole epochs."""
        return self.epochs(number) * ceil(self.labelled(number) / self.settings.training.batch_images)

    def full_share(self, number: int) -> float:
        """Share of the images that a round trains on which are labelled in full."""
        return 1.0 if self.settings.acquisition.unit == "image" else self.outlook.seed_images / self.labelled(number)

    def unlabelled(self, number: int) -> int:
        """Images with anything left to ask for."""
        asked = number * self.queries if self.settings.acquisition.unit == "image" else 0
        return max(self.outlook.images - self.outlook.seed_images - asked, 0)

    def compared(self, number: int) -> int:
        """Images of labelled and asked regions whose edges are compared with clicks."""
        regions = min(self.outlook.seed_images + number * self.queries, MOST_LABELLED_REGIONS) + self.queries
        return min(regions, self.outlook.images)

    @property
    def drawn(self) -> int:
        """Images for evaluation on which the cost model is compared."""
        windows = WINDOWS_AN_IMAGE if self.settings.acquisition.unit == "region" else 1
        return min(self.eval_images, MOST_RANDOM_REGIONS // windows)

    def units(self, stage: str, number: int | None) -> int:
        """Steps, images or pages of a stage in a round."""
        count, images = number or 0, self.outlook.images
        if stage in TRAININGS:
            return self.steps(count)
        if stage in ("info-map", "cost-map"):
            return self.unlabelled(count)
        others = {
            "pool": images + self.eval_images,
            "seed-set": self.outlook.seed_images,
            "evaluate": self.eval_images,
            "oracle-query": min(self.queries, images),
            "evaluate-cost": self.compared(count) + self.drawn,
            "report": 1,
        }
        return others.get(stage, images)

    def read_bytes(self, stage: str) -> int:
        """Bytes of stored maps that a stage reads in a round at most."""
        wanted = self.settings.acquisition
        stores = (wanted.information != "random") + (wanted.cost != "none")
        return stores * self.outlook.map_bytes if stage in ("region-fusion", "nms") else 0


class Pace:
    """Seconds of stages by the rates of a machine."""

    def __init__(self, workload: Workload, rates: Rates) -> None:
        self.workload, self.rates = workload, rates

    def seconds(self, stage: str, number: int | None, written_bytes: float) -> float:
        """Seconds of a stage in a round, which writes so many bytes and hashes them."""
        rates, read_bytes = self.rates, self.workload.read_bytes(stage)
        disk_s = written_bytes / rates.write_bytes_s + (written_bytes + read_bytes) / rates.read_bytes_s
        return self._computing_s(stage, number) + disk_s

    def _computing_s(self, stage: str, number: int | None) -> float:
        if stage in TRAININGS:
            return self._training_s(stage, number or 0)
        units, unit_s = self.workload.units(stage, number), self.rates.unit_s[stage]
        if stage == "evaluate-cost":
            return self.workload.compared(number or 0) * self.rates.edges_s + self.workload.drawn * unit_s
        return units * unit_s

    def _training_s(self, stage: str, number: int) -> float:
        """Steps; and where images are read, once if they are kept and else in every epoch, the slower of the two."""
        labelled, epochs = self.workload.labelled(number), self.workload.epochs(number)
        full, full_s = self.workload.full_share(number), self.rates.unit_s[stage]
        step_s = full * full_s + (1 - full) * self.rates.part_s.get(stage, full_s)
        kept = min(1.0, self.rates.kept_bytes / (3 * self.workload.outlook.mean_px * labelled))
        read = labelled * (kept + epochs * (1 - kept))
        return read * max(step_s, self.rates.image_s / self.rates.readers) + (labelled * epochs - read) * step_s


def recorded_rates(made: Iterable[Made], workload: Workload) -> dict[str, float]:
    """Seconds a unit that stages of this campaign have taken: the median over its rounds."""
    found: dict[str, list[float]] = defaultdict(list)
    for each in made:
        counted = each.facts.get(COUNTED.get(each.stage, ""))
        units = counted or workload.units(each.stage, each.round_number)
        found[each.stage].append(each.elapsed_s / max(units, 1))
    return {stage: median(rates) for stage, rates in found.items()}


def times(
    left: ToCome, workload: Workload, pace: Pace | None, recorded_s: Mapping[str, float], disk_bytes: Mapping[str, int]
) -> list[StageTime]:
    """Time of each stage that is left: by what it took before where that is recorded, else by the machine's pace.

    `disk_bytes`: what each stage leaves in all rounds to come. Without a pace, only recorded stages are told.
    """
    return [
        _time(stage, rounds, workload, None if stage in recorded_s else pace, recorded_s, disk_bytes.get(stage, 0))
        for stage, rounds in left.items()
        if pace is not None or stage in recorded_s
    ]


def _time(
    stage: str,
    rounds: Sequence[int | None],
    workload: Workload,
    pace: Pace | None,
    recorded_s: Mapping[str, float],
    disk_bytes: int,
) -> StageTime:
    units = [workload.units(stage, number) for number in rounds]
    mean_units = sum(units) / len(units)
    if pace is None:
        return StageTime(stage, mean_units, tuple(count * recorded_s[stage] for count in units), is_recorded=True)
    seconds = tuple(pace.seconds(stage, number, disk_bytes / len(rounds)) for number in rounds)
    return StageTime(stage, mean_units, seconds, is_recorded=False, waits=stage in pace.rates.waiting)


def advice(settings: CampaignSettings, found: Sequence[StageTime], on_device: bool) -> str:
    """What takes most of the time, and what would shorten it; empty if no stage stands out."""
    total_s = sum(each.total_s for each in found)
    most = max(found, key=lambda each: each.total_s, default=None)
    if most is None or most.total_s < MUCH * total_s:
        return ""
    said = f"{most.stage} takes {share(most.total_s, total_s)} of the time"
    if most.waits:
        return f"{said}, and waits for images to be read more than for its network"
    remedies = _shorter(settings, most.stage)
    if most.stage in NETWORKS and not on_device:
        remedies.append("run it where there is a CUDA device")
    return f"{said}; {' or '.join(remedies)}" if remedies else said


def _shorter(settings: CampaignSettings, stage: str) -> list[str]:
    if stage in TRAININGS:
        return [f"lower training.max_steps = {settings.training.max_steps:,}"]
    if stage == "info-map" and settings.acquisition.needs_dropout:
        return [f"lower acquisition.dropout_samples = {settings.acquisition.dropout_samples}"]
    if stage in ("cost-map", "evaluate-cost") or (stage in NETWORKS and settings.model.name == "fcn8s"):
        return [f"lower model.width = {settings.model.width:g}"]
    return []
