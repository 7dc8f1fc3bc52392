"""Scores of all regions of a round from stored maps, a shard at a time: fusion stores them, replay makes others."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from cereals_core.fusion import Extent, extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX, Box, candidate_shape
from cereals_core.regions import candidates, image_sums, untouched_images, window_sums
from cereals_core.seeding import rng
from cereals_core.settings import Acquisition
from cereals_core.suppression import suppress
from tasks import tables
from tasks.labels import Ledger
from tasks.layout import MAPS
from tasks.maps import MapStore, Pool, PoolImage, Shard, spread
from tasks.products import Product

_NOTHING = Extent(np.inf, -np.inf)
Extents = dict[str, Extent]


class Windows:
    """Regions of one size, a cell apart, wholly inside their image."""

    def __init__(self, window_px: int) -> None:
        self.window_px, self.window_cells = window_px, window_px // STRIDE_PX

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Positions in an image of so many pixels."""
        return candidate_shape(height, width, self.window_px)

    def sums(self, maps: np.ndarray, shard: Shard) -> np.ndarray:
        """Sum of every window: float64 (images, rows, columns)."""
        return window_sums(_whole_cells(maps, shard), self.window_cells)

    def values(self, maps: np.ndarray, shard: Shard) -> np.ndarray:
        """What is compared over the pool: the sums."""
        return self.sums(maps, shard)

    def candidates(self, labelled: np.ndarray, shard: Shard) -> np.ndarray:
        """Windows that hold nothing labelled: bool (images, rows, columns)."""
        return candidates(_whole_cells(labelled, shard), self.window_cells)

    def box(self, image: PoolImage, y: int, x: int) -> Box:
        """The region at (y, x), in pixels."""
        return Box(y, x, self.window_px, self.window_px)


class WholeImages:
    """Images as they are, each one region at (0, 0)."""

    window_cells = 1

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """One position, whatever the size."""
        return (1, 1)

    def sums(self, maps: np.ndarray, shard: Shard) -> np.ndarray:
        """Sum of every map: float64 (images, 1, 1)."""
        return image_sums(maps)

    def values(self, maps: np.ndarray, shard: Shard) -> np.ndarray:
        """What is compared over the pool: means per cell, so that size alone makes no image better (our choice)."""
        return self.sums(maps, shard) / maps[0].size

    def candidates(self, labelled: np.ndarray, shard: Shard) -> np.ndarray:
        """Images of which nothing is labelled: bool (images, 1, 1)."""
        return untouched_images(labelled)

    def box(self, image: PoolImage, y: int, x: int) -> Box:
        """The whole image, in pixels."""
        return Box(0, 0, image.height, image.width)


def regions_of(wanted: Acquisition) -> Windows | WholeImages:
    """What the settings call a region."""
    return Windows(wanted.window_px) if wanted.unit == "region" else WholeImages()


def _whole_cells(maps: np.ndarray, shard: Shard) -> np.ndarray:
    return maps[:, : shard.height // STRIDE_PX, : shard.width // STRIDE_PX]


class Scoring:
    """Region maps, fused scores and proposals of one round under one way of acquisition.

    `maps` holds the products of "information" and "cost", None where there is none; `seed` and `number` are those of
    the campaign and its round.
    """

    def __init__(
        self,
        wanted: Acquisition,
        pool: Pool,
        ledger: Ledger,
        maps: dict[str, Product | None],
        seed: int,
        number: int,
    ) -> None:
        self.wanted, self.pool, self.ledger, self.seed, self.number = wanted, pool, ledger, seed, number
        self.regions, self.budget = regions_of(wanted), pool.budget(wanted)
        self.maps = {name: MapStore(product / MAPS) for name, product in maps.items() if product is not None}

    def extents(self, shards: Sequence[Shard], threads: int) -> Extents:
        """Smallest and largest value of each region map over all candidates of these shards."""
        return self.merged(spread(self._extents, shards, threads) if self.maps else ())

    def merged(self, found: Iterable[Extents]) -> Extents:
        """Extents over all that these were found over."""
        extents = dict.fromkeys(self.maps, _NOTHING)
        for each in found:
            extents = {name: extent.merge(each[name]) for name, extent in extents.items()}
        return extents

    def _extents(self, shard: Shard) -> Extents:
        mask = self.candidates(shard)
        return {name: extent_of(self._values(name, shard), mask) for name in self.maps}

    def candidates(self, shard: Shard) -> np.ndarray:
        """Regions that may be asked for: bool (images, rows, columns)."""
        labelled = np.stack([self.ledger.labelled_cells(image) for image in shard.images])
        return self.regions.candidates(labelled, shard)

    def _values(self, name: str, shard: Shard) -> np.ndarray:
        return self.regions.values(self.maps[name].read(shard), shard)

    def scores(self, shard: Shard, extents: Extents) -> np.ndarray:
        """Fused scores: float32 (images, rows, columns), -inf where a region is no candidate."""
        mask = self.candidates(shard)
        if self.wanted.information == "random":
            return np.where(mask, self._random(shard, mask.shape[1:]), np.float32(-np.inf))
        scaled = {name: scale(self._values(name, shard), extents[name]) for name in self.maps}
        return fuse(self.wanted.fusion, scaled["information"], scaled.get("cost"), self.wanted.alpha, mask)

    def _random(self, shard: Shard, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform scores: taking the best that do not overlap draws regions one after the other, uniformly."""
        streams = (rng(self.seed, "random-regions", self.number, image.image_id) for image in shard.images)
        return np.stack([stream.random(shape, np.float32) for stream in streams])

    def proposals(self, shard: Shard, scores: np.ndarray) -> pa.Table:
        """What suppression leaves of a shard's scores; of each image at most what a whole round may ask for."""
        limit = self.budget.most_queries
        found = [suppress(each, self.regions.window_cells, limit) for each in scores]
        index = np.repeat(np.arange(len(found)), [len(values) for _, values in found])
        cells = np.concatenate([positions for positions, _ in found])
        columns = {
            "image_rank": np.array([image.rank for image in shard.images])[index],
            "y": cells[:, 0] * STRIDE_PX,
            "x": cells[:, 1] * STRIDE_PX,
            "score": np.concatenate([values for _, values in found]),
            "spend": self._spend(shard, index, cells),
        }
        return pa.table(columns).cast(tables.PROPOSALS)

    def _spend(self, shard: Shard, index: np.ndarray, cells: np.ndarray) -> np.ndarray:
        """What each proposal takes from the budget: its pixels, or the clicks it is predicted to cost, at least 1."""
        if self.budget.unit == "pixels":
            return np.full(len(index), float(self.regions.box(shard.images[0], 0, 0).pixels))
        clicks = self.regions.sums(self.maps["cost"].read(shard), shard)
        return np.maximum(clicks[index, cells[:, 0], cells[:, 1]], self.budget.least)

    def all_proposals(self, extents: Extents, threads: int) -> Iterator[pa.Table]:
        """Proposals of every shard, from maps to suppression at once."""
        return spread(partial(self._score_and_suppress, extents), self.pool.shards(), threads)

    def _score_and_suppress(self, extents: Extents, shard: Shard) -> pa.Table:
        return self.proposals(shard, self.scores(shard, extents))
