"""region-fusion and nms: from maps to proposals, shard by shard on all cores; no network, no truth."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeVar

import pyarrow as pa

from tasks import tables
from tasks.labels import Ledger
from tasks.layout import PROPOSALS, SCALES
from tasks.maps import Shard, batches
from tasks.products import Product
from tasks.progress import track
from tasks.scoring import Scales, Scoring
from tasks.stage import Work, stage
from tasks.start import open_pool
from tasks.workers import kept

Found = TypeVar("Found")
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
    version=2,
    depends_on=("acquisition.unit", "acquisition.window_px"),
    where="shards",
)
def region_fusion(
    work: Work, pool: Product, ledger: Product, information: Product | None, cost: Product | None
) -> None:
    """Sum both maps over every region that may be asked for, and find the scales of fusion over the whole pool.

    Fused scores are not stored: nms makes them from the maps again, which takes less time than to write and read them.
    """
    inputs = {"pool": pool, "ledger": ledger, "information": information, "cost": cost}
    scoring = _scoring(work, inputs)
    scales = scoring.merged(_in_batches(work, scoring, partial(_scales, work, inputs)))
    scales.write(work.folder / SCALES)
    work.facts.update(candidates=scales.candidates)


def _scales(work: Work, inputs: Inputs, shards: Sequence[Shard]) -> Scales:
    """Scales of these shards."""
    return _scoring(work, inputs).scales(shards)


@stage(
    "nms",
    version=3,
    depends_on=(
        "seed",
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.images_per_round",
        "acquisition.clicks_per_round",
        "acquisition.information",
        "acquisition.fusion",
        "acquisition.alpha",
    ),
    where="shards",
)
def nms(
    work: Work, pool: Product, ledger: Product, scales: Product, information: Product | None, cost: Product | None
) -> None:
    """Region proposals: fused scores, random ones if that is the strategy, and greedy suppression in each image.

    Those are left out that are not among the best of the pool, as many as a round may ask for at most.
    """
    inputs = {"pool": pool, "ledger": ledger, "information": information, "cost": cost}
    propose = partial(_propose, work, inputs, Scales.read(scales / SCALES))
    scoring = _scoring(work, inputs)
    proposals = scoring.within_reach(_in_batches(work, scoring, propose))
    tables.write_table(work.folder / PROPOSALS, tables.PROPOSALS, proposals)
    work.facts.update(proposals=len(proposals))


def _propose(work: Work, inputs: Inputs, scales: Scales, shards: Sequence[Shard]) -> pa.Table:
    """Proposals of these shards."""
    return pa.concat_tables(map(partial(_scoring(work, inputs).proposals, scales), shards))


def _in_batches(work: Work, scoring: Scoring, function: Callable[[Sequence[Shard]], Found]) -> Iterator[Found]:
    """Call `function` on batches of the pool's shards, wherever stages run, and yield what it finds."""
    shards = scoring.pool.shards()
    to_do = batches(shards)
    name = work.folder.name.split(".")[1]
    with track(f"round {work.number} {name}", len(shards), "shards") as advance:
        for some, found in zip(to_do, work.each(function, to_do), strict=True):
            yield found
            for _ in some:
                advance()
