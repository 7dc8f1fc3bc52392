"""Reading a data set once: what is broken in it, what it holds, and what its splits have in common."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Literal

from cereals_core.datasets import open_truth
from cereals_core.datasets.check import ImageInfo, check, nothing_to_learn
from cereals_core.errors import DataError
from cereals_core.settings import CampaignSettings
from tasks.telling.progress import Tracker, track

SPLITS: tuple[Literal["pool"], Literal["eval"]] = ("pool", "eval")
Track = Callable[[int, str], AbstractContextManager[Tracker]]
"""Follows so many units of work."""


def examine(settings: CampaignSettings, tracked: Track | None = None) -> dict[str, list[ImageInfo]]:
    """Read every image of both splits and its truth once; DataError lists all that is broken."""
    datasets = {split: open_truth(settings.data, split) for split in SPLITS}
    infos: dict[str, list[ImageInfo]] = {}
    problems: list[str] = []
    with (tracked or partial(track, "check"))(
        sum(len(each.image_ids) for each in datasets.values()), "images"
    ) as advance:
        for split, dataset in datasets.items():
            infos[split], found = check(dataset, advance, settings.compute.cpu_threads, settings.data.root)
            problems += found or [f"{split}: {each}" for each in nothing_to_learn(infos[split])]
    if problems:
        raise DataError(f"{len(problems)} problems in the data; correct them and run again\n" + "\n".join(problems))
    return infos


def images_in_both(infos: Mapping[str, Sequence[ImageInfo]]) -> int:
    """Count the images for evaluation whose picture is in the pool too, byte for byte."""
    pool, evaluated = ([info.stamps[0].digest for info in infos[split] if info.stamps] for split in SPLITS)
    return len(set(pool) & set(evaluated))
