"""`metrics.prom`: what a campaign has reached and what its stages took, for Prometheus; from its manifests alone."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cereals_core.location import is_on_disk
from tasks.store.layout import ROUND_STAGES, Campaign
from tasks.store.products import MANIFEST
from tasks.store.storage import files_below, write_atomically

EXPOSITION = "metrics.prom"
"""Rewritten after every stage, in the format that Prometheus' node_exporter collects from files."""
FIRST_STAGES = ("pool", "seed-set", "pretrained", "true-cost-map")
UNITS = {"train-seg": "steps", "train-cost": "steps"} | dict.fromkeys(
    ("info-map", "cost-map", "true-cost-map"), "images"
)
"""What a stage's rate counts: training steps, or images of the pool."""


@dataclass(frozen=True)
class Made:
    """What a manifest says of a product; `made_at` in seconds since the epoch."""

    stage: str
    round_number: int | None
    elapsed_s: float
    total_bytes: int
    made_at: float
    facts: Mapping[str, Any]

    @property
    def units_per_second(self) -> float | None:
        """Steps or images in a second; None for stages that count neither."""
        units = self.facts.get(UNITS.get(self.stage, ""))
        return units / self.elapsed_s if units is not None and self.elapsed_s else None


OF_STAGES: dict[str, tuple[str, Callable[[Made], float | None]]] = {
    "cereals_stage_seconds": ("Time of the attempt that finished the stage.", lambda made: made.elapsed_s),
    "cereals_stage_bytes": ("Size of the stage's product.", lambda made: made.total_bytes),
    "cereals_stage_peak_memory_bytes": (
        "Largest resident memory of a process that computed the stage.",
        lambda made: made.facts.get("peak_bytes"),
    ),
    "cereals_stage_units_per_second": (
        "Training steps or images of maps in a second of the attempt that finished the stage; too high if it resumed.",
        lambda made: made.units_per_second,
    ),
}
OF_ROUNDS = {
    "cereals_round_miou": ("Mean IoU on the evaluation split after the round's training, 0 to 1.", "miou"),
    "cereals_round_clicks": ("Clicks that the labels of the round's training have cost in all.", "clicks"),
    "cereals_round_pixels": ("Labelled pixels of the round's training.", "pixels"),
}


def write_metrics(campaign: Campaign) -> None:
    """Rewrite the campaign's `metrics.prom`; manifests that have not changed are not read again."""
    registry = CollectorRegistry()
    registry.register(_Figures(campaign.settings.name, list(made_products(campaign))))
    write_atomically(campaign.folder / EXPOSITION, generate_latest(registry))


def made_products(campaign: Campaign) -> Iterator[Made]:
    """What the valid manifests of a campaign say; files beside them are not looked at."""
    versions = None if is_on_disk(campaign.folder) else files_below(campaign.folder)
    for stage, number in stages_of(campaign):
        file = campaign.stage(stage, number) / MANIFEST
        version = _version(file) if versions is None else versions.get(_relative(file, campaign.folder))
        made = _read(file, version, stage, number) if version is not None else None
        if made is not None:
            yield made


def stages_of(campaign: Campaign) -> Iterator[tuple[str, int | None]]:
    """Names and rounds of all stages whose product may be there."""
    yield from ((name, None) for name in FIRST_STAGES)
    yield from ((name, number) for number in campaign.rounds() for name in ROUND_STAGES)


def _version(file: Path) -> tuple[int, ...] | None:
    """What changes with a file's content on a disk; None if there is no file."""
    try:
        stat = file.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _relative(file: Path, folder: Path) -> str:
    return str(file).removeprefix(str(folder).rstrip("/") + "/")


@lru_cache(maxsize=1 << 14)
def _read(file: Path, version: object, stage: str, number: int | None) -> Made | None:
    try:
        manifest = json.loads(file.read_text())
        checksum = manifest.pop("checksum")
        made_at = datetime.fromisoformat(manifest["made_at"]).timestamp()
        total_bytes = sum(size for size, _ in manifest["files"].values())
        made = Made(stage, number, manifest["elapsed_s"], total_bytes, made_at, manifest["facts"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    whole = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest() == checksum
    return made if whole else None


class _Figures(Collector):
    """Hands the figures of one campaign to Prometheus' client."""

    def __init__(self, campaign: str, made: list[Made]) -> None:
        self.campaign, self.made = campaign, made

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, (help_text, figure) in OF_STAGES.items():
            labels = ("round", "stage")
            yield self._family(
                name, help_text, labels, (((_round(each), each.stage), figure(each)) for each in self.made)
            )
        evaluated = [each for each in self.made if each.stage == "evaluate"]
        for name, (help_text, fact) in OF_ROUNDS.items():
            points = (((_round(each),), each.facts.get(fact)) for each in evaluated)
            yield self._family(name, help_text, ("round",), points)
        done = sum(each.stage == "report" for each in self.made)
        last = max((each.made_at for each in self.made), default=None)
        yield self._family("cereals_rounds_done", "Rounds that have ended with their report.", (), [((), done)])
        help_text = "When the newest product was finished, in seconds since the epoch."
        yield self._family("cereals_last_stage_timestamp_seconds", help_text, (), [((), last)])

    def _family(
        self, name: str, text: str, labels: tuple[str, ...], points: Iterable[tuple[tuple[str, ...], float | None]]
    ) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=("campaign", *labels))
        for values, figure in points:
            if figure is not None:
                family.add_metric((self.campaign, *values), figure)
        return family


def _round(made: Made) -> str:
    """The round's number; empty for stages before the first round, which Prometheus takes for no such label."""
    return "" if made.round_number is None else str(made.round_number)
