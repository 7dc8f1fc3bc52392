"""Maps on disk: one Zarr array for each size of image, one chunk for each shard of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import FsspecStore

from cereals_core.acquisition import Budget, round_budget
from cereals_core.errors import ProductError
from cereals_core.grid import map_shape
from cereals_core.location import is_on_disk, options_of
from cereals_core.settings import Acquisition

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
        """What a round may spend on this pool; SettingsError if that is less than one query."""
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
    """Name of the map group of images of this size in pixels."""
    return f"{height}x{width}"


class MapStore:
    """Float16 maps of a pool in one folder. Chunks carry a CRC-32C, checked on reading; rows not written are NaN."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arrays: dict[str, zarr.Array[Any]] = {}

    @classmethod
    def create(cls, folder: Path, pool: Pool) -> "MapStore":
        """Open the store for writing."""
        for group, images in pool.groups.items():
            maps = (len(images), *map_shape(images[0].height, images[0].width))
            chunks = (min(pool.shard_images, len(images)), *maps[1:])
            if not _is_array(folder / group, maps, chunks):
                zarr.create_array(
                    _array_store(folder / group),
                    shape=maps,
                    chunks=chunks,
                    dtype="float16",
                    fill_value=np.nan,
                    compressors=Crc32cCodec(),
                    overwrite=True,
                )
        return cls(folder)

    def array(self, group: str) -> "zarr.Array[Any]":
        """The array (images, rows, columns) of one group; ProductError when its metadata is missing or damaged."""
        if group not in self._arrays:
            self._arrays[group] = _open_array(self.folder / group)
        return self._arrays[group]

    def has(self, shard: Shard) -> bool:
        """Whether the shard's chunk was written."""
        return (self.folder / shard.group / "c" / str(shard.index) / "0" / "0").exists()

    def write(self, shard: Shard, maps: np.ndarray) -> None:
        """Write the shard's maps (images, rows, columns), one whole chunk."""
        self.array(shard.group)[shard.rows] = maps

    def read(self, shard: Shard) -> np.ndarray:
        """Read the shard's maps (images, rows, columns)."""
        return self._read(shard.group, shard.rows)

    def read_image(self, image: PoolImage) -> np.ndarray:
        """Read one image's map (rows, columns)."""
        return self._read(image.group, image.row)

    def _read(self, group: str, rows: slice | int) -> np.ndarray:
        array = self.array(group)
        try:
            return np.asarray(array[rows])
        except (ValueError, OSError) as error:
            raise ProductError(
                f"{self.folder / group}: rows {rows} are damaged ({error}); remove {self.folder.parent} and run again"
            ) from None


def _open_array(folder: Path) -> "zarr.Array[Any]":
    try:
        return zarr.open_array(_array_store(folder), mode="r+")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # what Zarr makes of damaged metadata
        raise ProductError(
            f"{folder}: no readable array ({error}); remove {folder.parent.parent} and run again"
        ) from None


def _array_store(folder: Path) -> Any:
    """What Zarr takes for this folder; for an object store it has a way of its own."""
    return folder if is_on_disk(folder) else FsspecStore.from_url(str(folder), storage_options=options_of(folder))


def _is_array(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...]) -> bool:
    try:
        found = _open_array(folder)
    except ProductError:
        return False
    return found.shape == shape and found.chunks == chunks


def batches(shards: Sequence[Shard]) -> list[Sequence[Shard]]:
    """Shards as they are handed to a worker at a time."""
    return [shards[start : start + SHARDS_A_BATCH] for start in range(0, len(shards), SHARDS_A_BATCH)]
