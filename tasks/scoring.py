"""Fused scores of a round's regions, and the proposals that are left of them, image by image from stored maps."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from cereals_core.acquisition import Cutoff, best_of_classes, best_within, best_within_classes, top_k
from cereals_core.acquisition_settings import Acquisition
from cereals_core.fusion import fuse, noisy, scale
from cereals_core.grid import STRIDE_PX
from cereals_core.predicted_classes import drawn_by_class
from cereals_core.regions import kind_of
from cereals_core.seeding import rng
from cereals_core.suppression import suppress
from tasks.region_maps import Regions, Scales, Sums
from tasks.store import tables
from tasks.store.ledger import Row
from tasks.store.pool import Pool, PoolImage, Shard


class Proposing:
    """Fused scores of a round's regions by the scales of the pool, and what suppression leaves of them."""

    def __init__(self, regions: Regions, scales: Scales) -> None:
        self.regions, self.scales, self.wanted = regions, scales, regions.wanted
        self.budget = regions.pool.budget(self.wanted)
        self.cutoff = Cutoff(self.budget.most_queries)
        self.best = scales.best_scores(self.wanted)
        self.spending = regions.ledger.spending

    def shards(self) -> list[Shard]:
        """List the pool's shards; those first that may hold the best regions, so that others are soon out of reach."""
        shards = self.regions.pool.shards()
        best = np.array([max(self.best[image.rank] for image in shard.images) for shard in shards])
        return [shards[index] for index in np.argsort(-best, kind="stable")]

    def scores(self, shards: Iterable[Shard]) -> Iterator[tuple[PoolImage, np.ndarray]]:
        """Yield fused scores of each image: float32 (rows, columns), -inf where a region is no candidate."""
        for shard, maps in self.regions.read(shards):
            for image, mask, sums in self.regions.of(shard.images, maps):
                yield image, self._scores(image, mask, sums)

    def _scores(self, image: PoolImage, mask: np.ndarray, sums: Sums) -> np.ndarray:
        wanted, regions, extents = self.wanted, self.regions, self.scales.extents
        if wanted.is_drawn:
            # Taking the best that do not overlap then draws regions one after the other.
            drawn = rng(regions.seed, "random-regions", regions.number, image.image_id).random(mask.shape, np.float32)
            if wanted.information == "random_by_class":
                drawn = drawn_by_class(drawn, sums["class"], regions.shares)
            return np.where(mask, drawn, np.float32(-np.inf))
        scaled = {name: scale(each, extents[name]) for name, each in regions.compared(image, sums).items()}
        fused = fuse(wanted.fusion, scaled["information"], scaled.get("cost"), wanted.alpha, wanted.offset, mask)
        if not wanted.noise:
            return fused
        stream = rng(regions.seed, "noise", regions.number, image.image_id)
        return noisy(fused, wanted.noise / (1 + regions.number), stream)

    def proposals(self, shards: Iterable[Shard]) -> pa.Table:
        """Return what suppression leaves of these shards' scores, without what is known to be out of a round's reach.

        Images are not looked at, and shards not read, that can hold nothing within reach.
        """
        found = [tables.PROPOSALS.schema.empty_table()]
        for shard, maps in self.regions.read(shard for shard in shards if self._above_cutoff(shard)):
            images = self.regions.of(self._above_cutoff(shard), maps)
            if columns := [self._suppressed(*each) for each in images]:
                found.append(_table({name: np.concatenate([each[name] for each in columns]) for name in columns[0]}))
                if not self.wanted.class_share:  # by which the best of every class are within reach
                    self.cutoff.add((shard.group, shard.index), found[-1]["score"].to_numpy())
        return pa.concat_tables(found)

    def _above_cutoff(self, shard: Shard) -> list[PoolImage]:
        """Find the images of a shard that may hold a region within reach."""
        return [image for image in shard.images if -np.inf < self.best[image.rank] >= self.cutoff.least]

    def _suppressed(self, image: PoolImage, mask: np.ndarray, sums: Sums) -> dict[str, np.ndarray]:
        """Return proposals of one image, as columns: their scores, what they take from the budget, and their sums."""
        kind, scores = self.regions.kind, self._scores(image, mask, sums)
        most = min(self.cutoff.k, self.wanted.regions_per_image or self.cutoff.k)
        cells, values = suppress(scores, kind.window_cells, most, self.cutoff.least)
        y, x = cells.T
        found = {name: each[y, x] for name, each in sums.items() if name != "price"}
        if "class" in found:
            found["class"] = found["class"].astype(np.int32)
        pixels = kind.box(0, 0, *image.size).pixels
        if self.wanted.cost == "learned":
            found["cost"] = self.spending.floored(found["cost"], pixels)
        in_clicks = self.budget.unit == "clicks"
        return {
            "image_rank": np.full(len(cells), image.rank),
            "y": y * STRIDE_PX,
            "x": x * STRIDE_PX,
            "score": values,
            "spend": self._spent(found["cost"]) if in_clicks else np.full(len(cells), float(pixels)),
            **found,
        }

    def _spent(self, clicks: np.ndarray) -> np.ndarray:
        """Tell what regions take of a budget in clicks; true ones need no correction."""
        if self.wanted.cost == "true":
            return np.maximum(clicks, self.budget.least)
        return self.spending.spent(clicks, self.budget.least)

    def all(self) -> pa.Table:
        """Return proposals of the pool, from maps to suppression at once."""
        return self.best_of([self.proposals(self.shards())])

    def best_of(self, found: Iterable[pa.Table]) -> pa.Table:
        """Return the best of all proposals found, in the order they are found, as many as a round may ask for.

        The same whatever was left out before for being out of reach, and so whatever was worked through first.
        """
        best = tables.PROPOSALS.schema.empty_table()
        for some in found:
            best = pa.concat_tables([best, some])
            if len(best) > self.cutoff.k:
                columns = {name: best[name].to_numpy() for name in ("score", "y", "x", "image_rank")}
                kept = [top_k(columns, self.cutoff.k)]
                if self.wanted.class_share:
                    kept += best_of_classes(columns, best["predicted_class"].to_numpy(), self.cutoff.k)
                best = best.take(np.unique(np.concatenate(kept)))
        return best


def best_queries(wanted: Acquisition, pool: Pool, proposals: pa.Table) -> list[Row]:
    """Choose the rows of the queries table: the best proposals within the round's budget."""
    columns = {name: proposals[name].to_numpy() for name in ("image_rank", "y", "x", "score", "spend")}
    kind, budget = kind_of(wanted), pool.budget(wanted).amount
    if wanted.class_share:
        classes = proposals["predicted_class"].to_numpy()
        best = best_within_classes(columns, classes, budget, wanted.class_share)
    else:
        best = best_within(columns, budget)
    queries: list[Row] = []
    for rank, row in enumerate(proposals.take(best).to_pylist()):
        image = pool.images[row["image_rank"]]
        region = {"image_id": image.image_id, **kind.box(row["y"], row["x"], *image.size)._asdict()}
        kept = {name: row[name] for name in ("score", "information", "predicted_clicks")}
        queries.append({"rank": rank, **region, **kept})
    return queries


def _table(columns: dict[str, np.ndarray]) -> pa.Table:
    """Make a table of PROPOSALS, without sums of maps that there are not."""
    absent = pa.nulls(len(columns["score"]))
    renamed = {"information": "information", "cost": "predicted_clicks", "class": "predicted_class"}
    sums = {name: columns.pop(key, absent) for key, name in renamed.items()}
    return pa.Table.from_pydict(columns | sums, schema=tables.PROPOSALS.schema)
