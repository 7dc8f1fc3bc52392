"""region-fusion and nms: from maps to proposals, shard by shard on all cores; no network, no truth."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pyarrow as pa

from cereals_core.workload import Workload
from tasks.region_maps import MAP_NAMES, Regions, Scales
from tasks.running.stage import stage
from tasks.running.takes import Memory, Takes
from tasks.running.work import Inputs, Work, there
from tasks.running.workers import kept
from tasks.scoring import Proposing
from tasks.store import tables
from tasks.store.ledger import Ledger
from tasks.store.pool import Shard, batches, open_pool
from tasks.store.products import Product

SCORED_CELL_BYTES = 8
"""What scoring a shard holds for each cell: two float16 maps, and the bytes that they are read from."""
PROPOSAL_BYTES = 40
"""A row of proposals on disk."""


def _takes(disk_bytes: Callable[[Workload, int], float]) -> Takes:
    return Takes(
        memory=lambda load: Memory(arrays=SCORED_CELL_BYTES * load.shard_cells),
        disk_bytes=disk_bytes,
        lighter=lambda settings: f"lower compute.shard_images = {settings.compute.shard_images} or compute.threads",
    )


def _regions(work: Work, inputs: Inputs) -> Regions:
    """Open the round's regions, once where they are needed; `inputs` are the pool, the ledger and the maps."""
    return kept(("regions", work.folder), lambda: _opened(work, inputs))


def _opened(work: Work, inputs: Inputs) -> Regions:
    settings = work.campaign.settings
    pool, ledger = open_pool(work.campaign, there(inputs["pool"])), Ledger(there(inputs["ledger"]))
    maps = {name: inputs.get(name) for name in MAP_NAMES}
    return Regions(settings.acquisition, pool, ledger, maps, settings.seed, work.number)


def _proposing(work: Work, inputs: Inputs) -> Proposing:
    """Open how the round proposes regions, once where that is needed; `inputs` has the scales too."""

    def opened() -> Proposing:
        scales = Scales(tables.EXTENTS.read(there(inputs["scales"])))
        return Proposing(_opened(work, inputs), scales)

    return kept(("proposing", work.folder), opened)


@stage(
    "region-fusion",
    version=4,
    depends_on=(
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.class_weight",
        "acquisition.region_price",
    ),
    where="shards",
    takes=_takes(lambda load, number: 0.0),
    note=lambda facts: f"{facts['candidates']:,} candidate windows",
)
def region_fusion(
    work: Work,
    pool: Product,
    ledger: Product,
    information: Product | None,
    cost: Product | None,
    classes: Product | None = None,
) -> None:
    """Sum both maps over every region that may be asked for, and find how far they extend in each image and the pool.

    Fused scores are not stored: nms makes them from the maps again, which takes less time than to write and read them.
    """
    inputs = {"pool": pool, "ledger": ledger, "information": information, "cost": cost, "classes": classes}
    shards = _regions(work, inputs).pool.shards()
    found = _in_batches(work, shards, partial(_extents, work, inputs))
    scales = Scales(pa.concat_tables(found).sort_by("image_rank"))
    tables.EXTENTS.write(work.folder, scales.table)
    work.facts.update(candidates=scales.candidates)


def _extents(work: Work, inputs: Inputs, shards: Sequence[Shard]) -> pa.Table:
    """Find the EXTENTS of these shards."""
    return _regions(work, inputs).extents(shards)


@stage(
    "nms",
    version=6,
    depends_on=(
        "seed",
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.images_per_round",
        "acquisition.clicks_per_round",
        "acquisition.information",
        "acquisition.cost",
        "acquisition.fusion",
        "acquisition.alpha",
        "acquisition.offset",
        "acquisition.class_weight",
        "acquisition.class_share",
        "acquisition.noise",
        "acquisition.regions_per_image",
        "acquisition.region_price",
    ),
    where="shards",
    takes=_takes(lambda load, number: PROPOSAL_BYTES * load.most_proposals),
    note=lambda facts: f"{facts['proposals']:,} proposals",
)
def nms(
    work: Work,
    pool: Product,
    ledger: Product,
    scales: Product,
    information: Product | None,
    cost: Product | None,
    classes: Product | None = None,
) -> None:
    """Propose regions: fused scores, random ones if that is the strategy, and greedy suppression in each image.

    Those are left out that are not among the best of the pool, as many as a round may ask for at most. Images that can
    hold none of them, by their extents, are not looked at.
    """
    maps = {"information": information, "cost": cost, "classes": classes}
    inputs = {"pool": pool, "ledger": ledger, "scales": scales, **maps}
    proposing = _proposing(work, inputs)
    found = _in_batches(work, proposing.shards(), partial(_propose, work, inputs))
    proposals = proposing.best_of(found)
    tables.PROPOSALS.write(work.folder, proposals)
    work.facts.update(proposals=len(proposals), correction=proposing.spending.correction)


def _propose(work: Work, inputs: Inputs, shards: Sequence[Shard]) -> pa.Table:
    """Propose regions of these shards."""
    return _proposing(work, inputs).proposals(shards)


def _in_batches(
    work: Work, shards: Sequence[Shard], function: Callable[[Sequence[Shard]], pa.Table]
) -> Iterator[pa.Table]:
    """Call `function` on batches of shards, wherever stages run, and yield what it finds."""
    to_do = batches(shards)
    with work.track(sum(len(shard.images) for shard in shards), "images") as advance:
        for some, found in zip(to_do, work.each(function, to_do), strict=True):
            yield found
            advance(units=sum(len(shard.images) for shard in some))
