"""Maps on disk: one Zarr array for each size of image, one chunk for each shard of images."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec
from zarr.storage import FsspecStore

from cereals_core.errors import ProductError
from cereals_core.grid import map_shape
from cereals_core.location import is_on_disk, options_of
from tasks.store.pool import Pool, PoolImage, Shard


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
            create_array(folder / group, maps, chunks)
        return cls(folder)

    def array(self, group: str) -> "zarr.Array[Any]":
        """Open the array (images, rows, columns) of one group; ProductError when its metadata is missing or damaged."""
        if group not in self._arrays:
            self._arrays[group] = open_array(self.folder / group)
        return self._arrays[group]

    def has(self, shard: Shard) -> bool:
        """Tell whether the shard's chunk was written."""
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


def create_array(
    folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], shards: tuple[int, ...] | None = None
) -> None:
    """Make a float16 array in a folder, unless it is there: NaN where nothing was written, checksums in its chunks."""
    if not _is_array(folder, shape, chunks, shards):
        zarr.create_array(
            _array_store(folder),
            shape=shape,
            chunks=chunks,
            shards=shards,
            dtype="float16",
            fill_value=np.nan,
            compressors=Crc32cCodec(),
            overwrite=True,
        )


def open_array(folder: Path) -> "zarr.Array[Any]":
    """Open the array in a folder; ProductError when its metadata is missing or damaged."""
    try:
        return zarr.open_array(_array_store(folder), mode="r+")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # what Zarr makes of damaged metadata
        raise ProductError(
            f"{folder}: no readable array ({error}); remove {folder.parent.parent} and run again"
        ) from None


def _array_store(folder: Path) -> Any:
    """Return what Zarr takes for this folder; for an object store it has a way of its own."""
    return folder if is_on_disk(folder) else FsspecStore.from_url(str(folder), storage_options=options_of(folder))


def _is_array(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], shards: tuple[int, ...] | None) -> bool:
    try:
        found = open_array(folder)
    except ProductError:
        return False
    return (found.shape, found.chunks, found.shards) == (shape, chunks, shards)
