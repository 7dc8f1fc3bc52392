"""Scores of all regions of a round from stored maps: a shard is read, and worked through image by image."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial, reduce
from pathlib import Path

import numpy as np
import pyarrow as pa

from cereals_core.acquisition import Reach, top_k
from cereals_core.fusion import Extent, extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX, Box, candidate_shape, map_shape
from cereals_core.regions import candidates, image_sum, untouched_image, window_sums
from cereals_core.seeding import rng
from cereals_core.settings import Acquisition
from cereals_core.suppression import suppress
from tasks import tables
from tasks.labels import Ledger
from tasks.layout import MAPS
from tasks.maps import MapStore, Pool, PoolImage, Shard
from tasks.products import Product
from tasks.storage import write_atomically

_NOTHING = Extent(np.inf, -np.inf)
Sums = dict[str, np.ndarray]
"""Sums of "information" and "cost" over every region of one image, as far as there are such maps: float64 (rows,
columns)."""


@dataclass(frozen=True)
class Scales:
    """What scaling needs to know of the whole pool: how far each region map extends over the candidates, their number.

    `extents` are those of "information" and "cost", as far as there are such maps.
    """

    extents: Mapping[str, Extent]
    candidates: int = 0

    def merge(self, other: "Scales") -> "Scales":
        """The scales of both; the order of merging does not matter."""
        extents = {name: extent.merge(other.extents[name]) for name, extent in self.extents.items()}
        return Scales(extents, self.candidates + other.candidates)

    def write(self, file: Path) -> None:
        """Keep them as JSON, exactly."""
        write_atomically(file, json.dumps(asdict(self)).encode())

    @classmethod
    def read(cls, file: Path) -> "Scales":
        """What `write` has kept."""
        kept = json.loads(file.read_text())
        return cls({name: Extent(**extent) for name, extent in kept["extents"].items()}, kept["candidates"])


class Windows:
    """Regions of one size, a cell apart, wholly inside their image."""

    def __init__(self, window_px: int) -> None:
        self.window_px, self.window_cells = window_px, window_px // STRIDE_PX

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Positions in an image of so many pixels."""
        return candidate_shape(height, width, self.window_px)

    def sums(self, cells: np.ndarray, image: PoolImage) -> np.ndarray:
        """Sum of every window: float64 (rows, columns)."""
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

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """One position, whatever the size."""
        return (1, 1)

    def sums(self, cells: np.ndarray, image: PoolImage) -> np.ndarray:
        """Sum of the map: float64 (1, 1)."""
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


def regions_of(wanted: Acquisition) -> Windows | WholeImages:
    """What the settings call a region."""
    return Windows(wanted.window_px) if wanted.unit == "region" else WholeImages()


def _whole_cells(cells: np.ndarray, image: PoolImage) -> np.ndarray:
    return cells[: image.height // STRIDE_PX, : image.width // STRIDE_PX]


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
        self.reach = Reach(self.budget.most_queries)
        self.maps = {name: MapStore(product / MAPS) for name, product in maps.items() if product is not None}

    def scales(self, shards: Iterable[Shard]) -> Scales:
        """The scales of these shards."""
        return self.merged(map(self._scales, shards))

    def merged(self, found: Iterable[Scales]) -> Scales:
        """The scales of all these."""
        return reduce(Scales.merge, found, Scales(dict.fromkeys(self.maps, _NOTHING)))

    def _scales(self, shard: Shard) -> Scales:
        return self.merged(
            Scales(
                {name: extent_of(self.regions.compared(each, image), mask) for name, each in sums.items()},
                int(mask.sum()),
            )
            for image, mask, sums in self._images(shard)
        )

    def _images(self, shard: Shard) -> Iterator[tuple[PoolImage, np.ndarray, Sums]]:
        """Each image, which of its regions may be asked for, bool (rows, columns), and the sums of its maps."""
        stored = {name: store.read(shard) for name, store in self.maps.items()}
        for index, image in enumerate(shard.images):
            mask = self.regions.candidates(self.ledger.labelled_cells(image), image)
            yield image, mask, {name: self.regions.sums(maps[index], image) for name, maps in stored.items()}

    def scores(self, scales: Scales, shard: Shard) -> Iterator[np.ndarray]:
        """Fused scores of one image after the other: float32 (rows, columns), -inf where a region is no candidate."""
        for image, mask, sums in self._images(shard):
            yield self._scores(scales, image, mask, sums)

    def _scores(self, scales: Scales, image: PoolImage, mask: np.ndarray, sums: Sums) -> np.ndarray:
        if self.wanted.information == "random":
            # Taking the best that do not overlap then draws regions one after the other, uniformly.
            drawn = rng(self.seed, "random-regions", self.number, image.image_id).random(mask.shape, np.float32)
            return np.where(mask, drawn, np.float32(-np.inf))
        scaled = {name: scale(self.regions.compared(each, image), scales.extents[name]) for name, each in sums.items()}
        return fuse(self.wanted.fusion, scaled["information"], scaled.get("cost"), self.wanted.alpha, mask)

    def proposals(self, scales: Scales, shard: Shard) -> pa.Table:
        """What suppression leaves of a shard's scores; less what is known by now to be out of a round's reach."""
        found = [tables.PROPOSALS.empty_table()]
        for image, mask, sums in self._images(shard):
            scores = self._scores(scales, image, mask, sums)
            cells, values = suppress(scores, self.regions.window_cells, self.reach.k, self.reach.least)
            if len(values):
                found.append(self._table(image, cells, values, sums))
        proposals = pa.concat_tables(found)
        self.reach.add((shard.group, shard.index), proposals["score"].to_numpy())
        return proposals

    def _table(self, image: PoolImage, cells: np.ndarray, scores: np.ndarray, sums: Sums) -> pa.Table:
        """Proposals of one image: regions at `cells` with their scores, what they take from the budget, their sums."""
        (y, x), absent = cells.T, pa.nulls(len(cells))
        found = {name: each[y, x] for name, each in sums.items()}
        spend = np.full(len(cells), float(self.regions.box(image, 0, 0).pixels))
        if self.budget.unit == "clicks":
            spend = np.maximum(found["cost"], self.budget.least)
        columns = {
            "image_rank": np.full(len(cells), image.rank),
            "y": y * STRIDE_PX,
            "x": x * STRIDE_PX,
            "score": scores,
            "spend": spend,
            "information": found.get("information", absent),
            "predicted_clicks": found.get("cost", absent),
        }
        return pa.Table.from_pydict(columns, schema=tables.PROPOSALS)

    def all_proposals(self, scales: Scales) -> pa.Table:
        """Proposals of the pool, from maps to suppression at once."""
        return self.within_reach(map(partial(self.proposals, scales), self.pool.shards()))

    def within_reach(self, found: Iterable[pa.Table]) -> pa.Table:
        """The best of all proposals found, in the order they are found, as many as a round may ask for.

        The same whatever was left out before for being out of reach, and so whatever was worked through first.
        """
        best = tables.PROPOSALS.empty_table()
        for some in found:
            best = pa.concat_tables([best, some])
            if len(best) > self.reach.k:
                columns = {name: best[name].to_numpy() for name in ("score", "y", "x", "image_rank")}
                best = best.take(np.sort(top_k(columns, self.reach.k)))
        return best
