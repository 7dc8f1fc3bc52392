"""region-fusion and nms: from maps to proposals, a shard at a time with Dask's threads; no network, no truth."""

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import pyarrow as pa

from tasks import tables
from tasks.device import cpu_threads
from tasks.labels import Ledger
from tasks.layout import MAPS, PROPOSALS, SCALES
from tasks.maps import MapStore, Shard, batches, spread
from tasks.products import Product
from tasks.progress import track
from tasks.scoring import Extents, Scoring
from tasks.stage import Work, stage
from tasks.start import open_pool
from tasks.workers import kept

Inputs = Mapping[str, Product | None]


def _scoring(work: Work, inputs: Inputs) -> Scoring:
    """The round's scoring, opened once where it is needed; `inputs` are the pool, the ledger and the maps."""

    def opened() -> Scoring:
        settings = work.campaign.settings
        pool, ledger = open_pool(work.campaign, _there(inputs["pool"])), Ledger(_there(inputs["ledger"]))
        maps = {name: inputs.get(name) for name in ("information", "cost")}
        return Scoring(settings.acquisition, pool, ledger, maps, settings.seed, work.number)

    return kept(("scoring", work.folder), opened)


def _there(product: Product | None) -> Product:
    assert product is not None
    return product


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
    where="shards",
)
def region_fusion(
    work: Work, pool: Product, ledger: Product, information: Product | None, cost: Product | None
) -> None:
    """Fused score of every region: sums, scaled over the whole pool, fused; or random scores."""
    inputs = {"pool": pool, "ledger": ledger, "information": information, "cost": cost}
    scoring, threads = _scoring(work, inputs), cpu_threads(work.campaign.settings.compute)
    shards = scoring.pool.shards()
    extents = scoring.merged(work.each(partial(_extents, work, inputs), batches(shards, threads)))
    MapStore.create(work.folder / MAPS, scoring.pool, scoring.regions.shape)
    with track(f"round {work.number} region-fusion", len(shards), "shards") as advance:
        total = 0
        for counts in work.each(partial(_fuse, work, inputs, extents), batches(shards, threads)):
            for count in counts:
                total += count
                advance()
    scales = json.dumps({name: vars(extent) for name, extent in extents.items()})
    (work.folder / SCALES).write_text(scales)
    work.facts.update(candidates=total)


def _extents(work: Work, inputs: Inputs, shards: Sequence[Shard]) -> Extents:
    return _scoring(work, inputs).extents(shards, cpu_threads(work.campaign.settings.compute))


def _fuse(work: Work, inputs: Inputs, extents: Extents, shards: Sequence[Shard]) -> list[int]:
    """Write the fused scores of these shards; returns the number of candidates of each."""
    scoring, store = _scoring(work, inputs), MapStore(work.folder / MAPS)

    def fuse_shard(shard: Shard) -> int:
        scores = scoring.scores(shard, extents)
        store.write(shard, scores)
        return int((scores > float("-inf")).sum())

    return list(spread(fuse_shard, shards, cpu_threads(work.campaign.settings.compute)))


@stage(
    "nms",
    version=2,
    depends_on=(
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.images_per_round",
        "acquisition.clicks_per_round",
    ),
    where="shards",
)
def nms(work: Work, pool: Product, ledger: Product, fused: Product, cost: Product | None) -> None:
    """Region proposals: greedy suppression in each image; `cost` is there for a budget in predicted clicks only."""
    inputs = {"pool": pool, "ledger": ledger, "cost": cost}
    shards = _scoring(work, inputs).pool.shards()
    with track(f"round {work.number} nms", len(shards), "shards") as advance:

        def proposals() -> Iterator[pa.Table]:
            to_do = batches(shards, cpu_threads(work.campaign.settings.compute))
            for some in work.each(partial(_propose, work, inputs, fused), to_do):
                for table in some:
                    yield table
                    advance()

        count = tables.write_batches(work.folder / PROPOSALS, tables.PROPOSALS, proposals())
    work.facts.update(proposals=count)


def _propose(work: Work, inputs: Inputs, fused: Product, shards: Sequence[Shard]) -> list[pa.Table]:
    """Proposals of each of these shards."""
    scoring, store = _scoring(work, inputs), MapStore(fused / MAPS)
    threads = cpu_threads(work.campaign.settings.compute)
    return list(spread(lambda shard: scoring.proposals(shard, store.read(shard)), shards, threads))
