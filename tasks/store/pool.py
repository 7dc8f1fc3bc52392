"""The pool: its images by rank, and the shards they are worked through in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cereals_core.acquisition import Budget, round_budget
from cereals_core.acquisition_settings import Acquisition
from tasks.store import tables
from tasks.store.layout import Campaign
from tasks.store.products import Product

SHARDS_A_BATCH = 8
"""Shards that are handed to a worker at a time."""


@dataclass(frozen=True, slots=True)
class PoolImage:
    """One image of the pool. `rank` is its place among the pool's sorted ids, `row` its place in its group's arrays."""

    rank: int
    image_id: str
    height: int
    width: int
    group: str
    row: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.height, self.width


@dataclass(frozen=True)
class Shard:
    """Images of one size whose maps share a chunk: the unit of writing, resuming and parallel work."""

    index: int
    images: tuple[PoolImage, ...]

    @property
    def group(self) -> str:
        """Name of the array that holds the shard's maps."""
        return self.images[0].group

    @property
    def height(self) -> int:
        """Height in pixels of every image of the shard."""
        return self.images[0].height

    @property
    def width(self) -> int:
        """Width in pixels of every image of the shard."""
        return self.images[0].width

    @property
    def rows(self) -> slice:
        """Index of the shard in its group's arrays."""
        return slice(self.images[0].row, self.images[-1].row + 1)


class Pool:
    """The pool's images by rank, and the shards they are worked through in."""

    def __init__(self, table: pa.Table, shard_images: int) -> None:
        columns = (table[name].to_pylist() for name in table.column_names)
        self.images = [PoolImage(rank, *values) for rank, values in enumerate(zip(*columns, strict=True))]
        self.shard_images = shard_images
        self.groups: dict[str, list[PoolImage]] = {}
        for image in self.images:
            self.groups.setdefault(image.group, []).append(image)

    def budget(self, wanted: Acquisition) -> Budget:
        """Compute what a round may spend on this pool; SettingsError if that is less than one query."""
        areas = [image.height * image.width for image in self.images]
        return round_budget(wanted, float(np.mean(areas)), min(areas))

    def shards(self) -> list[Shard]:
        """All shards, group by group."""
        size = self.shard_images
        return [
            Shard(start // size, tuple(images[start : start + size]))
            for images in self.groups.values()
            for start in range(0, len(images), size)
        ]


def group_name(height: int, width: int) -> str:
    """Name the map group of images of this size in pixels."""
    return f"{height}x{width}"


def open_pool(campaign: Campaign, pool: Product) -> Pool:
    """Open the pool that a pool product lists."""
    return Pool(tables.POOL.read(pool), campaign.settings.compute.shard_images)


def batches(shards: Sequence[Shard]) -> list[Sequence[Shard]]:
    """Group shards as they are handed to a worker at a time."""
    return [shards[start : start + SHARDS_A_BATCH] for start in range(0, len(shards), SHARDS_A_BATCH)]
