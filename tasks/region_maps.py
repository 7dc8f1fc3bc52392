"""Region maps of a round from stored maps: a shard is read, and its images are summed one by one; and their extents."""

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import torch

from cereals_core.acquisition_settings import Acquisition
from cereals_core.fusion import Extent, extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX
from cereals_core.predicted_classes import class_shares, class_weights, classes_of_windows, region_prices, weighted
from cereals_core.regions import kind_of
from tasks.running.prefetch import prefetched
from tasks.store import tables
from tasks.store.layout import MAPS
from tasks.store.ledger import Ledger
from tasks.store.maps import MapStore
from tasks.store.pool import Pool, PoolImage, Shard
from tasks.store.products import Product

SUMMED = ("information", "cost")
MAP_NAMES = (*SUMMED, "classes")
Maps = dict[str, np.ndarray]
"""The maps of MAP_NAMES of a shard's images, as far as there are such: float16 (images, rows, columns)."""
Sums = dict[str, np.ndarray]
"""Sums of "information" and "cost" over every region of one image, and of windows their "class" and "price", as far as
there are such: float32 (rows, columns)."""


class Scales:
    """How far the region maps of each image, and so of the pool, extend over candidates: what scaling needs to know.

    `table` is EXTENTS of all images, by rank. `extents` are those of "information" and "cost" over the whole pool, as
    far as there are such maps, and `candidates` is the number of regions that may be asked for.
    """

    def __init__(self, table: pa.Table) -> None:
        self.table, self.candidates = table, int(np.asarray(table["candidates"]).sum())
        self.extents = {
            name: Extent(float(self._column(name, "low").min()), float(self._column(name, "high").max()))
            for name in SUMMED
            if not table[f"{name}_low"].null_count
        }

    def _column(self, name: str, side: str) -> np.ndarray:
        return np.asarray(self.table[f"{name}_{side}"])

    def best_scores(self, wanted: Acquisition) -> np.ndarray:
        """Compute what no region of an image can exceed: float32 (images,), -inf without a candidate.

        It is the score of the image's most information at its least cost, since scores rise with the one and fall with
        the other, even when they are rounded. With anything drawn they may be anything.
        """
        free = np.asarray(self.table["candidates"]) > 0
        if wanted.is_drawn or wanted.noise:
            return np.where(free, np.float32(np.inf), np.float32(-np.inf))
        information = scale(self._column("information", "high"), self.extents["information"])
        cost = scale(self._column("cost", "low"), self.extents["cost"]) if "cost" in self.extents else None
        return fuse(wanted.fusion, information, cost, wanted.alpha, wanted.offset, free)


class Regions:
    """The regions of one round under one way of acquisition, and the sums of the maps over them.

    `maps` holds the products of MAP_NAMES, None where there is none; `seed` and `number` are those of
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
        if (classes := maps.get("classes")) is not None:
            self.shares = class_shares(classes.facts["cells"])
        self.maps = {name: MapStore(product / MAPS) for name, product in maps.items() if product is not None}

    def scales(self) -> Scales:
        """Merge the extents of the images into the scales of the whole pool."""
        return Scales(self.extents(self.pool.shards()).sort_by("image_rank"))

    def extents(self, shards: Iterable[Shard]) -> pa.Table:
        """Find the EXTENTS of the images of these shards."""
        rows = [self._extents(*each) for shard, maps in self.read(shards) for each in self.of(shard.images, maps)]
        return tables.EXTENTS.of(rows)

    def _extents(self, image: PoolImage, mask: np.ndarray, sums: Sums) -> dict[str, float]:
        row: dict[str, float] = {"image_rank": image.rank, "candidates": int(np.count_nonzero(mask))}
        for name, each in self.compared(image, sums).items():
            extent = extent_of(each, mask)
            row |= {f"{name}_low": extent.low, f"{name}_high": extent.high}
        return row

    def read(self, shards: Iterable[Shard]) -> Iterator[tuple[Shard, Maps]]:
        """Yield shards with their maps; the next ones are read while the caller works on those before."""
        return prefetched(lambda shard: {name: store.read(shard) for name, store in self.maps.items()}, shards)

    def of(self, images: Iterable[PoolImage], maps: Maps) -> Iterator[tuple[PoolImage, np.ndarray, Sums]]:
        """Yield images of a shard; which regions may be asked for, bool (rows, columns); and the regions' sums."""
        for image in images:
            mask = self.kind.candidates(self.ledger.labelled_cells(image), *image.size)
            row = image.row % self.pool.shard_images
            yield image, mask, self._sums(image, {name: halves[row] for name, halves in maps.items()})

    def _sums(self, image: PoolImage, maps: Maps) -> Sums:
        """Sum an image's maps (rows, columns) over every region, and find what its classes say of windows."""
        classes = maps.pop("classes", None)
        if classes is not None and self.wanted.class_weight and "information" in maps:
            weights = class_weights(self.shares, self.wanted.class_weight)
            maps["information"] = weighted(maps["information"], classes, weights)
        sums = {name: self.kind.sums(_single(half), *image.size) for name, half in maps.items()}
        if classes is not None and self.wanted.unit == "region":
            whole, window_cells = (
                classes[tuple(slice(side // STRIDE_PX) for side in image.size)],
                self.kind.window_cells,
            )
            sums["class"] = classes_of_windows(whole, window_cells)
            if self.wanted.region_price:
                sums["price"] = region_prices(whole, window_cells)
        return sums

    def compared(self, image: PoolImage, sums: Sums) -> Sums:
        """Return what is compared over the pool of each of SUMMED that there is; the cost with what a region costs."""
        found = {name: self.kind.compared(sums[name], *image.size) for name in SUMMED if name in sums}
        if "price" in sums:
            found["cost"] = found["cost"] + sums["price"]
        return found


def _single(half: np.ndarray) -> np.ndarray:
    """Convert a map to float32: by PyTorch ten times as fast as by NumPy, into NumPy's memory, which is reused."""
    single = np.empty(half.shape, np.float32)
    torch.from_numpy(single).copy_(torch.from_numpy(half))
    return single
