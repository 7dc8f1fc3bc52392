"""Region maps of a round from stored maps: a shard is read, and its images are summed one by one; and their extents."""

import math
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import torch

from cereals_core.fusion import Extent, extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX, Box, map_shape
from cereals_core.regions import candidates, image_sum, untouched_image, window_sums
from cereals_core.settings import Acquisition
from tasks import tables
from tasks.labels import Ledger
from tasks.layout import MAPS
from tasks.maps import MapStore, Pool, PoolImage, Shard
from tasks.prefetch import prefetched
from tasks.products import Product

MAP_NAMES = ("information", "cost")
Maps = dict[str, np.ndarray]
"""Maps of "information" and "cost" of a shard's images, as far as there are such: float16 (images, rows, columns)."""
Sums = dict[str, np.ndarray]
"""Sums of "information" and "cost" over every region of one image, as far as there are such maps: float32 (rows,
columns)."""


class Scales:
    """How far the region maps of each image, and so of the pool, extend over candidates: what scaling needs to know.

    `table` is EXTENTS of all images, by rank. `extents` are those of "information" and "cost" over the whole pool, as
    far as there are such maps, and `candidates` is the number of regions that may be asked for.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table, self.candidates = table, int(np.asarray(table["candidates"]).sum())
        self.extents = {
            name: Extent(float(self._column(name, "low").min()), float(self._column(name, "high").max()))
            for name in MAP_NAMES
            if not table[f"{name}_low"].null_count
        }

    def _column(self, name: str, side: str) -> np.ndarray:
        return np.asarray(self.table[f"{name}_{side}"])

    def best_scores(self, wanted: Acquisition) -> np.ndarray:
        """What no region of an image can exceed: float32 (images,), -inf without a candidate.

        It is the score of the image's most information at its least cost, since scores rise with the one and fall with
        the other, even when they are rounded. Random scores may be anything.
        """
        free = np.asarray(self.table["candidates"]) > 0
        if wanted.information == "random":
            return np.where(free, np.float32(np.inf), np.float32(-np.inf))
        information = scale(self._column("information", "high"), self.extents["information"])
        cost = scale(self._column("cost", "low"), self.extents["cost"]) if "cost" in self.extents else None
        return fuse(wanted.fusion, information, cost, wanted.alpha, free)


class Windows:
    """Regions of one size, a cell apart, wholly inside their image."""

    def __init__(self, window_px: int) -> None:
        self.window_px, self.window_cells = window_px, window_px // STRIDE_PX

    def sums(self, cells: np.ndarray, image: PoolImage) -> np.ndarray:
        """Sum of every window: float32 (rows, columns)."""
        return window_sums(_whole_cells(cells, image), self.window_cells)

    def compared(self, sums: np.ndarray, image: PoolImage) -> np.ndarray:
        """What is compared over the pool: the sums."""
        return sums

    def candidates(self, labelled: np.ndarray, image: PoolImage) -> np.ndarray:
        """Windows that hold nothing labelled: bool (rows, columns)."""
        return candidates(_whole_cells(labelled, image), self.window_cells)

    def box(self, image: PoolImage, y: int, x: int) -> Box:
        """The region at (y, x), in pixels."""
        return Box(y, x, self.window_px, self.window_px)


class WholeImages:
    """Images as they are, each one region at (0, 0)."""

    window_cells = 1

    def sums(self, cells: np.ndarray, image: PoolImage) -> np.ndarray:
        """Sum of the map: float32 (1, 1)."""
        return image_sum(cells)

    def compared(self, sums: np.ndarray, image: PoolImage) -> np.ndarray:
        """What is compared over the pool: means per cell, so that size alone makes no image better (our choice)."""
        return sums / math.prod(map_shape(image.height, image.width))

    def candidates(self, labelled: np.ndarray, image: PoolImage) -> np.ndarray:
        """Whether nothing of the image is labelled: bool (1, 1)."""
        return untouched_image(labelled)

    def box(self, image: PoolImage, y: int, x: int) -> Box:
        """The whole image, in pixels."""
        return Box(0, 0, image.height, image.width)


def kind_of(wanted: Acquisition) -> Windows | WholeImages:
    """What the settings call a region."""
    return Windows(wanted.window_px) if wanted.unit == "region" else WholeImages()


def _whole_cells(cells: np.ndarray, image: PoolImage) -> np.ndarray:
    return cells[: image.height // STRIDE_PX, : image.width // STRIDE_PX]


class Regions:
    """The regions of one round under one way of acquisition, and the sums of the maps over them.

    `maps` holds the products of "information" and "cost", None where there is none; `seed` and `number` are those of
    the campaign and its round.
    """

    def __init__(
        self,
        wanted: Acquisition,
        pool: Pool,
        ledger: Ledger,
        maps: Mapping[str, Product | None],
        seed: int,
        number: int,
    ) -> None:
        self.wanted, self.pool, self.ledger, self.seed, self.number = wanted, pool, ledger, seed, number
        self.kind = kind_of(wanted)
        self.maps = {name: MapStore(product / MAPS) for name, product in maps.items() if product is not None}

    def scales(self) -> Scales:
        """The scales of the whole pool."""
        return Scales(self.extents(self.pool.shards()).sort_by("image_rank"))

    def extents(self, shards: Iterable[Shard]) -> pa.Table:
        """EXTENTS of the images of these shards."""
        rows = [self._extents(*each) for shard, maps in self.read(shards) for each in self.of(shard.images, maps)]
        return pa.Table.from_pylist(rows, schema=tables.EXTENTS)

    def _extents(self, image: PoolImage, mask: np.ndarray, sums: Sums) -> dict[str, float]:
        row: dict[str, float] = {"image_rank": image.rank, "candidates": int(np.count_nonzero(mask))}
        for name, each in sums.items():
            extent = extent_of(self.kind.compared(each, image), mask)
            row |= {f"{name}_low": extent.low, f"{name}_high": extent.high}
        return row

    def read(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Maps]]:
        """Shards with their maps; the next ones are read while the caller works on those before."""
        return prefetched(lambda shard: {name: store.read(shard) for name, store in self.maps.items()}, shards)

    def of(self, images: Iterable[PoolImage], maps: Maps) -> Iterator[tuple[PoolImage, np.ndarray, Sums]]:
        """Images of a shard; which of their regions may be asked for, bool (rows, columns); and the regions' sums."""
        for image in images:
            mask = self.kind.candidates(self.ledger.labelled_cells(image), image)
            row = image.row % self.pool.shard_images
            sums = {name: self.kind.sums(_single(halves[row]), image) for name, halves in maps.items()}
            yield image, mask, sums


def _single(half: np.ndarray) -> np.ndarray:
    """A map as float32: by PyTorch ten times as fast as by NumPy, into memory of NumPy's, whose allocator reuses it."""
    single = np.empty(half.shape, np.float32)
    torch.from_numpy(single).copy_(torch.from_numpy(half))
    return single
