"""seed-set and oracle-query: the only stages that show the pool's truth to the oracle, and write down its answers."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from cereals_core.acquisition import best_within
from cereals_core.datasets import open_truth
from cereals_core.oracle import Answer, answer
from cereals_core.regions import kind_of
from cereals_core.seeding import rng
from cereals_core.settings import Acquisition
from tasks.pool import refuse_impossible
from tasks.running.prefetch import prefetched
from tasks.running.stage import Work, stage
from tasks.store import tables
from tasks.store.answers import answer_row
from tasks.store.layout import ANSWERS, LEDGER, PROPOSALS, QUERIES
from tasks.store.ledger import Ledger, box_of
from tasks.store.pool import Pool, open_pool
from tasks.store.products import Product
from tasks.telling.progress import track

SEED_SET_ROUND = -1
"""Round number of the seed set's rows in the ledger."""
Query = dict[str, Any]
"""A row of the queries table."""


@stage("seed-set", version=1, depends_on=("seed", "data", "acquisition.seed_images"))
def seed_set(work: Work, pool: Product) -> None:
    """Label images drawn uniformly, in full."""
    settings = work.campaign.settings
    images = open_pool(work.campaign, pool)
    refuse_impossible(settings, images)
    wanted, pool_images = settings.acquisition.seed_images, len(images.images)
    count = pool_images if wanted == "all" else wanted
    chosen = rng(settings.seed, "seed-set").choice(pool_images, count, replace=False)
    queries = [
        {"rank": rank, "image_id": image.image_id, "y": 0, "x": 0, "height": image.height, "width": image.width}
        for rank, image in enumerate(images.images[index] for index in sorted(chosen))
    ]
    _ask(work, queries, SEED_SET_ROUND, tables.LEDGER.empty_table())


@stage(
    "oracle-query",
    version=2,
    depends_on=(
        "data",
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.images_per_round",
        "acquisition.clicks_per_round",
    ),
)
def oracle_query(work: Work, pool: Product, ledger: Product, proposals: Product) -> None:
    """Ask for the best proposals of the pool that fit the round's budget, and add the answers to the ledger."""
    images = open_pool(work.campaign, pool)
    found = tables.read_table(proposals / PROPOSALS, tables.PROPOSALS)
    queries = best_queries(work.campaign.settings.acquisition, images, found)
    tables.write_table(work.folder / QUERIES, tables.QUERIES, queries)
    _ask(work, queries, work.number, Ledger(ledger).table)


def best_queries(wanted: Acquisition, pool: Pool, proposals: pa.Table) -> list[Query]:
    """Rows of the queries table: the best proposals within the round's budget."""
    columns = {name: proposals[name].to_numpy() for name in ("image_rank", "y", "x", "score", "spend")}
    best, kind = best_within(columns, pool.budget(wanted).amount), kind_of(wanted)
    queries: list[Query] = []
    for rank, row in enumerate(proposals.take(best).to_pylist()):
        image = pool.images[row["image_rank"]]
        region = {"image_id": image.image_id, **kind.box(row["y"], row["x"], *image.size)._asdict()}
        kept = {name: row[name] for name in ("score", "information", "predicted_clicks")}
        queries.append({"rank": rank, **region, **kept})
    return queries


def _by_image(queries: Sequence[Query]) -> dict[str, list[Query]]:
    by_image: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        by_image[query["image_id"]].append(query)
    return by_image


def _ask(work: Work, queries: Sequence[Query], round_number: int, before: pa.Table) -> None:
    """Write the oracle's answers to the queries, and the ledger `before` with a row for each of them."""
    dataset = open_truth(work.campaign.settings.data, "pool")
    by_image = _by_image(queries)
    answers: dict[int, Answer] = {}
    with track("oracle-query", len(by_image), "images") as advance:
        for image_id, truth in prefetched(dataset.truth, by_image):
            for query in by_image[image_id]:
                answers[query["rank"]] = answer(image_id, truth, box_of(query))
            advance()
    rows = [
        {
            **query,
            "round": round_number,
            "vertices": answers[query["rank"]].cost.vertices,
            "crossings": answers[query["rank"]].cost.crossings,
            "components": answers[query["rank"]].cost.components,
        }
        for query in queries
    ]
    new = pa.Table.from_pylist(rows, schema=tables.LEDGER)
    tables.write_table(work.folder / LEDGER, tables.LEDGER, pa.concat_tables([before, new]))
    tables.write_table(work.folder / ANSWERS, tables.ANSWERS, [answer_row(answers[query["rank"]]) for query in queries])
    work.facts.update(regions=len(rows), images=len(by_image), clicks=sum(row["vertices"] for row in rows))
