"""seed-set and oracle-query: the only stages that show the pool's truth to the oracle, and write down its answers."""

from collections.abc import Sequence
from math import prod

import pyarrow as pa

from cereals_core.datasets import open_truth
from cereals_core.oracle import answer
from cereals_core.seeding import rng
from cereals_core.workload import Workload
from tasks.pages.wording import clicks, plural
from tasks.pool import workload_of
from tasks.running.prefetch import prefetched
from tasks.running.stage import stage
from tasks.running.takes import IMAGES_READ, TRUTH_BYTES, Memory, Takes
from tasks.running.work import Work
from tasks.scoring import best_queries
from tasks.store import tables
from tasks.store.answers import HELD_BYTES, writing_answers
from tasks.store.ledger import Ledger, Row, box_of, by_image
from tasks.store.pool import open_pool
from tasks.store.products import Product

ANSWER_BYTES_A_PIXEL = 0.5
"""Answers on disk for each pixel labelled: labels (0.1 as PNG of small windows) and clicks (up to 0.3) at most."""
LEDGER_ROW_BYTES = 100
SEED_SET_ROUND = -1
"""Round number of the seed set's rows in the ledger."""


def _memory(load: Workload) -> Memory:
    held = min(HELD_BYTES, ANSWER_BYTES_A_PIXEL * load.pixels)
    return Memory(arrays=IMAGES_READ * TRUTH_BYTES * prod(load.largest) + 4 * held)


def _asked_bytes(load: Workload, number: int) -> float:
    """Count bytes of a round's answers, and of its ledger, which holds all rows so far."""
    rows = load.seed_images + (number + 1) * load.queries
    return LEDGER_ROW_BYTES * rows + ANSWER_BYTES_A_PIXEL * (load.asked_px(number + 1) - load.asked_px(number))


@stage(
    "seed-set",
    version=1,
    depends_on=("seed", "data", "acquisition.seed_images"),
    takes=Takes(
        units=lambda load, number: load.seed_images,
        memory=_memory,
        disk_bytes=lambda load, number: ANSWER_BYTES_A_PIXEL * load.seed_px,
    ),
    note=lambda facts: f"{plural(facts['images'], 'image')} labelled in full, {clicks(facts['clicks'])} clicks",
)
def seed_set(work: Work, pool: Product) -> None:
    """Label images drawn uniformly, in full."""
    settings = work.campaign.settings
    images = open_pool(work.campaign, pool)
    workload_of(work.campaign, pool).refuse_impossible()
    wanted, pool_images = settings.acquisition.seed_images, len(images.images)
    count = pool_images if wanted == "all" else wanted
    chosen = rng(settings.seed, "seed-set").choice(pool_images, count, replace=False)
    queries = [
        {"rank": rank, "image_id": image.image_id, "y": 0, "x": 0, "height": image.height, "width": image.width}
        for rank, image in enumerate(images.images[index] for index in sorted(chosen))
    ]
    _ask(work, queries, SEED_SET_ROUND, tables.LEDGER.schema.empty_table())


@stage(
    "oracle-query",
    version=2,
    depends_on=(
        "data",
        "acquisition.unit",
        "acquisition.window_px",
        "acquisition.images_per_round",
        "acquisition.clicks_per_round",
        "acquisition.class_share",
    ),
    lasting=True,
    takes=Takes(units=lambda load, number: min(load.queries, load.images), memory=_memory, disk_bytes=_asked_bytes),
    note=lambda facts: f"{facts['regions']:,} regions in {facts['images']:,} images, {clicks(facts['clicks'])} clicks",
)
def oracle_query(work: Work, pool: Product, ledger: Product, proposals: Product) -> None:
    """Ask for the best proposals of the pool that fit the round's budget, and add the answers to the ledger."""
    images = open_pool(work.campaign, pool)
    found = tables.PROPOSALS.read(proposals)
    queries = best_queries(work.campaign.settings.acquisition, images, found)
    tables.QUERIES.write(work.folder, queries)
    _ask(work, queries, work.number, Ledger(ledger).table)


def _ask(work: Work, queries: Sequence[Row], round_number: int, before: pa.Table) -> None:
    """Write the oracle's answers to the queries as they come, and the ledger `before` with a row for each of them."""
    dataset = open_truth(work.campaign.settings.data, "pool")
    asked, rows = by_image(queries), dict[int, Row]()
    with work.track(len(asked), "images") as advance, writing_answers(work.folder) as take:
        for image_id, truth in prefetched(dataset.truth, asked):
            for query in asked[image_id]:
                answered = answer(image_id, truth, box_of(query))
                take(answered)
                rows[query["rank"]] = {**query, "round": round_number, **vars(answered.cost)}
            advance()
    new = tables.LEDGER.of([rows[query["rank"]] for query in queries])
    tables.LEDGER.write(work.folder, pa.concat_tables([before, new]))
    spent = sum(row["vertices"] for row in rows.values())
    work.facts.update(regions=len(rows), images=len(asked), clicks=spent)
