"""Features of images on disk, as a frozen encoder computed them: three Zarr arrays for each size of image.

A shard of images is one file of each array, written whole. In it an image is cut into tiles, so that a window is read
without the rest of its image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from cereals_core.errors import ProductError
from cereals_core.grid import FEATURE_STRIDES_PX
from tasks.store.maps import create_array, open_array
from tasks.store.pool import Pool, PoolImage, Shard

TILE_PX = 256
"""Largest side of a tile; an image's tiles are of one size."""
FEATURE_BYTES = 2


class FeatureStore:
    """Float16 features of a split in one folder: for each group and stride (images, rows, columns, channels).

    Tiles carry a CRC-32C, checked on reading; a shard that was not written reads as NaN.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._arrays: dict[Path, zarr.Array[Any]] = {}

    @classmethod
    def create(cls, folder: Path, images: Pool, channels: Sequence[int]) -> "FeatureStore":
        """Open the store for writing."""
        for group, members in images.groups.items():
            for stride_px, count in zip(FEATURE_STRIDES_PX, channels, strict=True):
                _create(folder / group / str(stride_px), members, images.shard_images, stride_px, count)
        return cls(folder)

    def has(self, shard: Shard) -> bool:
        """Tell whether the shard was written, at every stride."""
        parts = (self.folder / shard.group / str(stride_px) for stride_px in FEATURE_STRIDES_PX)
        return all((part / "c" / str(shard.index) / "0" / "0" / "0").exists() for part in parts)

    def write(self, shard: Shard, features: Sequence[np.ndarray]) -> None:
        """Write the shard's features, finest first: (images, rows, columns, channels), one whole file each."""
        for array, values in zip(self._of(shard.group), features, strict=True):
            array[shard.rows] = values

    def planes(self, image: PoolImage) -> list["Plane"]:
        """Return what reads parts of an image's features, finest first."""
        return [Plane(array, image.row) for array in self._of(image.group)]

    def read_image(self, image: PoolImage) -> tuple[np.ndarray, ...]:
        """Read an image's features, finest first: (rows, columns, channels)."""
        return tuple(plane[:, :] for plane in self.planes(image))

    def _of(self, group: str) -> list["zarr.Array[Any]"]:
        folders = [self.folder / group / str(stride_px) for stride_px in FEATURE_STRIDES_PX]
        for folder in folders:
            if folder not in self._arrays:
                self._arrays[folder] = open_array(folder)
        return [self._arrays[folder] for folder in folders]


class Plane:
    """Features of one image at one stride, on disk."""

    def __init__(self, array: "zarr.Array[Any]", row: int) -> None:
        self.array, self.row, self.shape = array, row, array.shape[1:]

    def __getitem__(self, index: tuple[slice, slice]) -> np.ndarray:
        """Read a part; ProductError where it is damaged."""
        try:
            return np.asarray(self.array[(self.row, *index)])
        except (ValueError, OSError) as error:
            raise ProductError(
                f"{self.array.store_path}: row {self.row} is damaged ({error}); remove the campaign's features and run "
                "again"
            ) from None


def _create(folder: Path, images: Sequence[PoolImage], shard_images: int, stride_px: int, channels: int) -> None:
    cells = tuple(-(-side // stride_px) for side in images[0].size)
    tiles = tuple(-(-side // (TILE_PX // stride_px)) for side in cells)
    tile = tuple(-(-side // count) for side, count in zip(cells, tiles, strict=True))
    shape, chunks = (len(images), *cells, channels), (1, *tile, channels)
    whole = (side * count for side, count in zip(tile, tiles, strict=True))
    shards = (min(shard_images, len(images)), *whole, channels)
    create_array(folder, shape, chunks, shards)


def feature_cells(height: int, width: int, channels: Sequence[int]) -> int:
    """Count the numbers that are stored for an image of this size in pixels."""
    return sum(
        count * -(-height // stride_px) * -(-width // stride_px)
        for stride_px, count in zip(FEATURE_STRIDES_PX, channels, strict=True)
    )
