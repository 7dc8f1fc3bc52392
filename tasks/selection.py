"""region-fusion and nms: from maps to proposals, a shard at a time with Dask's threads; no network, no truth."""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from cereals_core.acquisition import regions_in_budget
from cereals_core.fusion import Extent, extent_of, fuse, scale
from cereals_core.grid import STRIDE_PX, candidate_shape
from cereals_core.regions import candidates, window_sums
from cereals_core.seeding import rng
from cereals_core.suppression import suppress
from tasks import tables
from tasks.device import cpu_threads
from tasks.labels import Ledger
from tasks.layout import MAPS, PROPOSALS, SCALES
from tasks.maps import MapStore, Shard, spread
from tasks.products import Product
from tasks.progress import track
from tasks.stage import Work, stage
from tasks.start import open_pool

_ALL = Extent(np.inf, -np.inf)


class RegionMaps:
    """Window sums of a shard's stored maps, and which windows are candidates."""

    def __init__(self, window_px: int, ledger: Ledger, maps: dict[str, MapStore]) -> None:
        self.window_cells, self.ledger, self.maps = window_px // STRIDE_PX, ledger, maps

    def candidates(self, shard: Shard) -> np.ndarray:
        """Windows wholly inside the image that hold nothing labelled: bool (images, rows, columns)."""
        labelled = np.stack([self.ledger.labelled_cells(image) for image in shard.images])
        return candidates(_whole_cells(labelled, shard), self.window_cells)

    def sums(self, shard: Shard) -> dict[str, np.ndarray]:
        """Sum of every window of each map: float64 (images, rows, columns)."""
        return {
            name: window_sums(_whole_cells(store.read(shard), shard), self.window_cells)
            for name, store in self.maps.items()
        }

    def extents(self, shard: Shard) -> dict[str, Extent]:
        """Smallest and largest sum over the shard's candidates."""
        mask = self.candidates(shard)
        return {name: extent_of(sums, mask) for name, sums in self.sums(shard).items()}


def _whole_cells(maps: np.ndarray, shard: Shard) -> np.ndarray:
    return maps[:, : shard.height // STRIDE_PX, : shard.width // STRIDE_PX]


@stage(
    "region-fusion",
    version=1,
    depends_on=("seed", "acquisition.window_px", "acquisition.information", "acquisition.fusion", "acquisition.alpha"),
)
def region_fusion(
    work: Work, pool: Product, ledger: Product, information: Product | None, cost: Product | None
) -> None:
    """Fused score of every window: sums, scaled over the whole pool, fused; or random scores."""
    settings, images = work.campaign.settings, open_pool(work.campaign, pool)
    wanted = settings.acquisition
    sources = {"information": information, "cost": cost}
    maps = {name: MapStore(product / MAPS) for name, product in sources.items() if product is not None}
    regions = RegionMaps(wanted.window_px, Ledger(ledger), maps)
    shards, threads = images.shards(), cpu_threads(settings.compute)
    extents = dict.fromkeys(maps, _ALL)
    for found in spread(regions.extents, shards, threads) if maps else ():
        extents = {name: extent.merge(found[name]) for name, extent in extents.items()}
    store = MapStore.create(
        work.folder / MAPS, images, lambda height, width: candidate_shape(height, width, wanted.window_px)
    )

    def fuse_shard(shard: Shard) -> int:
        mask = regions.candidates(shard)
        if maps:
            scaled = {name: scale(sums, extents[name]) for name, sums in regions.sums(shard).items()}
            scores = fuse(wanted.fusion, scaled["information"], scaled.get("cost"), wanted.alpha, mask)
        else:
            scores = np.where(mask, _random_scores(work, shard, mask.shape[1:]), np.float32(-np.inf))
        store.write(shard, scores)
        return int(mask.sum())

    with track(f"round {work.number} region-fusion", len(shards), "shards") as advance:
        total = 0
        for count in spread(fuse_shard, shards, threads):
            total += count
            advance()
    (work.folder / SCALES).write_text(json.dumps({name: vars(extent) for name, extent in extents.items()}))
    work.facts.update(candidates=total)


def _random_scores(work: Work, shard: Shard, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform scores: taking the best of them that do not overlap draws windows one after the other, uniformly."""
    seed = work.campaign.settings.seed
    streams = (rng(seed, "random-regions", work.number, image.image_id) for image in shard.images)
    return np.stack([stream.random(shape, np.float32) for stream in streams])


@stage("nms", version=1, depends_on=("acquisition.window_px", "acquisition.images_per_round"))
def nms(work: Work, pool: Product, fused: Product) -> None:
    """Region proposals: greedy suppression in each image, at most as many as a whole round may ask for."""
    settings, images = work.campaign.settings, open_pool(work.campaign, pool)
    wanted, store = settings.acquisition, MapStore(fused / MAPS)
    limit = regions_in_budget(wanted.images_per_round, images.mean_image_pixels, wanted.window_px)

    def propose(shard: Shard) -> pa.Table:
        found = [suppress(scores, wanted.window_px // STRIDE_PX, limit) for scores in store.read(shard)]
        ranks = np.repeat([image.rank for image in shard.images], [len(scores) for _, scores in found])
        positions = np.concatenate([positions for positions, _ in found]) * STRIDE_PX
        scores = np.concatenate([scores for _, scores in found])
        return pa.table([ranks, positions[:, 0], positions[:, 1], scores], names=tables.PROPOSALS.names)

    shards = images.shards()
    with track(f"round {work.number} nms", len(shards), "shards") as advance:

        def proposals() -> Iterator[pa.Table]:
            for table in spread(propose, shards, cpu_threads(settings.compute)):
                yield table
                advance()

        count = tables.write_batches(work.folder / PROPOSALS, tables.PROPOSALS, proposals())
    work.facts.update(proposals=count)
