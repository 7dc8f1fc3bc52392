"""region-fusion and nms: from maps to proposals, a shard at a time with Dask's threads; no network, no truth."""

import json
from collections.abc import Iterator

import pyarrow as pa

from tasks import tables
from tasks.device import cpu_threads
from tasks.labels import Ledger
from tasks.layout import MAPS, PROPOSALS, SCALES
from tasks.maps import MapStore, Shard, spread
from tasks.products import Product
from tasks.progress import track
from tasks.scoring import Scoring
from tasks.stage import Work, stage
from tasks.start import open_pool


def _scoring(work: Work, pool: Product, ledger: Product, maps: dict[str, Product | None]) -> Scoring:
    settings = work.campaign.settings
    images = open_pool(work.campaign, pool)
    return Scoring(settings.acquisition, images, Ledger(ledger), maps, settings.seed, work.number)


@stage(
    "region-fusion",
    version=1,
    depends_on=(
        "seed",
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.information",
        "acquisition.fusion",
        "acquisition.alpha",
    ),
)
def region_fusion(
    work: Work, pool: Product, ledger: Product, information: Product | None, cost: Product | None
) -> None:
    """Fused score of every region: sums, scaled over the whole pool, fused; or random scores."""
    scoring = _scoring(work, pool, ledger, {"information": information, "cost": cost})
    shards, threads = scoring.pool.shards(), cpu_threads(work.campaign.settings.compute)
    extents = scoring.extents(threads)
    store = MapStore.create(work.folder / MAPS, scoring.pool, scoring.regions.shape)

    def fuse_shard(shard: Shard) -> int:
        scores = scoring.scores(shard, extents)
        store.write(shard, scores)
        return int((scores > float("-inf")).sum())

    with track(f"round {work.number} region-fusion", len(shards), "shards") as advance:
        total = 0
        for count in spread(fuse_shard, shards, threads):
            total += count
            advance()
    (work.folder / SCALES).write_text(json.dumps({name: vars(extent) for name, extent in extents.items()}))
    work.facts.update(candidates=total)


@stage(
    "nms",
    version=2,
    depends_on=(
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.images_per_round",
        "acquisition.clicks_per_round",
    ),
)
def nms(work: Work, pool: Product, ledger: Product, fused: Product, cost: Product | None) -> None:
    """Region proposals: greedy suppression in each image; `cost` is there for a budget in predicted clicks only."""
    scoring, store = _scoring(work, pool, ledger, {"cost": cost}), MapStore(fused / MAPS)

    def propose(shard: Shard) -> pa.Table:
        return scoring.proposals(shard, store.read(shard))

    shards = scoring.pool.shards()
    with track(f"round {work.number} nms", len(shards), "shards") as advance:

        def proposals() -> Iterator[pa.Table]:
            for table in spread(propose, shards, cpu_threads(work.campaign.settings.compute)):
                yield table
                advance()

        count = tables.write_batches(work.folder / PROPOSALS, tables.PROPOSALS, proposals())
    work.facts.update(proposals=count)
