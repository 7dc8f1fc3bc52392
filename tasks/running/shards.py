"""What networks make of images, by shards on the workers: finished shards are kept, the next images read meanwhile."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from cereals_core.errors import ProductError
from tasks.running.device import fetched
from tasks.running.prefetch import prefetched
from tasks.running.work import Inputs, Work
from tasks.running.workers import kept
from tasks.store.pool import Shard
from tasks.telling.progress import advance_here

SHARDS_A_CALL = 4
"""Shards that a worker gets at a time at most, so that it can read the next one's images while it computes."""
Reader = Callable[[str], Any]
"""What an image's results are made from, by the image's id; called ahead, in threads."""
Mapper = Callable[[Sequence[str], Sequence[Any]], Sequence[Tensor]]
"""Results of a batch of images of one size, from their ids and what was read: tensors (B, ...), anywhere."""
Made = dict[str, tuple[np.ndarray, ...]]
"""Results of some images of a shard, by the images' ids."""


@dataclass(frozen=True)
class Asked:
    """A shard, and those of its images whose results are wanted."""

    shard: Shard
    image_ids: tuple[str, ...]


class Store(ABC):
    """Where results go, in a folder of their own; `remedy` is what helps where they are not finite."""

    folder: Path
    remedy: str

    def has_all(self, asked: Asked) -> bool:
        """Tell whether the results were written before, whole and finite."""
        try:
            return self.has(asked.shard) and not self.not_finite(asked)
        except ProductError:
            return False

    def put(self, asked: Asked, made: Made) -> None:
        """Write a shard's results, and read them again; ProductError when some are not finite."""
        self.write(asked.shard, made)
        unusable = self.not_finite(asked)
        if unusable:
            raise ProductError(
                f"{self.folder}: maps of {unusable[:3]} ({len(unusable)} images) are not finite: {self.remedy}"
            )

    @abstractmethod
    def has(self, shard: Shard) -> bool:
        """Tell whether a shard was written."""

    @abstractmethod
    def write(self, shard: Shard, made: Made) -> None:
        """Write a shard's results."""

    @abstractmethod
    def not_finite(self, asked: Asked) -> list[str]:
        """Name the images whose results, as they were written, are not finite in every cell."""


@dataclass(frozen=True)
class Job:
    """What to make: `opener` opens data and network on the worker that needs them, `store` what is written to.

    Both get the stage at work and its inputs, and can be pickled. `name` tells apart the jobs of one stage.
    """

    opener: Callable[[Work, Inputs], tuple[Reader, Mapper]]
    store: Callable[[Work, Inputs], Store]
    name: str = ""


def write_shards(work: Work, job: Job, inputs: Inputs, asked: Sequence[Asked]) -> None:
    """Write all results that are wanted and not there yet; their images are added to the facts."""
    store = job.store(work, inputs)
    missing = [each for each in asked if not store.has_all(each)]
    images, to_do = (sum(len(each.image_ids) for each in some) for some in (asked, missing))
    with work.track(images, "images", images - to_do) as advance:
        size = min(SHARDS_A_CALL, max(len(missing) // work.lanes, 1))
        calls = [missing[start : start + size] for start in range(0, len(missing), size)]
        for count in work.each(partial(_write, job, work, inputs), calls):
            for _ in range(count):
                advance()
    work.facts["images"] = work.facts.get("images", 0) + images


def _write(job: Job, work: Work, inputs: Inputs, asked: Sequence[Asked]) -> int:
    """Write the results of some shards; returns how many of their images are still to be counted."""
    read, made_of = kept((work.stage, work.folder, job.name), lambda: job.opener(work, inputs))
    store, uncounted = job.store(work, inputs), 0
    found = _made(read, made_of, asked, work.campaign.settings.acquisition.batch_images)
    for each in asked:
        made: Made = {}
        for image_id, result in islice(found, len(each.image_ids)):
            made[image_id] = result
            uncounted += not advance_here()
        store.put(each, made)
    return uncounted


def _made(
    read: Reader, made_of: Mapper, asked: Sequence[Asked], size: int
) -> Iterator[tuple[str, tuple[np.ndarray, ...]]]:
    """Yield the results of all images of these shards, in batches of so many, while the next images are read."""
    items = prefetched(read, chain.from_iterable(each.image_ids for each in asked))
    batches = [each.image_ids[start : start + size] for each in asked for start in range(0, len(each.image_ids), size)]
    made = (made_of(*_padded(batch, [item for _, item in islice(items, len(batch))], size)) for batch in batches)
    for batch, results in zip(batches, fetched(made), strict=True):
        yield from zip(batch, zip(*results, strict=True), strict=False)


def _padded(image_ids: Sequence[str], items: Sequence[Any], size: int) -> tuple[Sequence[str], Sequence[Any]]:
    """Fill a batch to the full size with its last image: on the size depend the last bits of all its results."""
    missing = size - len(items)
    return [*image_ids, *[image_ids[-1]] * missing], [*items, *[items[-1]] * missing]
