"""report: what a person looks at after each round, in the campaign's folder and as a Prefect artifact."""

import math
from math import prod
from pathlib import Path

import pyarrow.compute as pc
from prefect import get_run_logger

from cereals_core.cost_baselines import PREDICTORS, SAMPLES
from cereals_core.datasets import open_images
from cereals_core.strategies import MEASURES
from tasks.pages.facts import CostSample, QueryFacts, RegionView, RoundFacts
from tasks.pages.figures import round_pictures
from tasks.pages.html import campaign_html
from tasks.pages.markdown import round_markdown
from tasks.pages.stages import stage_facts
from tasks.pages.wording import headline
from tasks.running.stage import stage
from tasks.running.takes import Memory, Takes
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.history import (
    evaluated_rounds,
    learning_curve,
    ledger_before,
    maps_of,
    product_of,
    products_made,
    why_stop,
)
from tasks.store.layout import MAPS, ROUND_PAGE, Campaign
from tasks.store.ledger import Ledger, box_of
from tasks.store.maps import MapStore
from tasks.store.pool import open_pool
from tasks.store.products import Product, find_product
from tasks.store.storage import write_atomically
from tasks.telling.progress import console
from tasks.telling.publishing import publish_round, shows_rounds

REGIONS_SHOWN = 4
PAGE_BYTES, DRAWN_BYTES_A_PIXEL = 1_000_000, 24
"""A round's page with its pictures on disk, and what drawing an image holds."""


@stage(
    "report",
    version=2,
    depends_on=("data",),
    where="flow",
    shareable=False,
    asks=False,
    lasting=True,
    takes=Takes(
        "page",
        lambda load, number: 1,
        memory=lambda load: Memory(arrays=DRAWN_BYTES_A_PIXEL * prod(load.largest)),
        disk_bytes=lambda load, number: PAGE_BYTES,
    ),
)
def report_round(
    work: Work, pool: Product, ledger: Product, metrics: Product, agreement: Product | None = None
) -> None:
    """Write the round's page and pictures, publish them, and copy the ledger to the campaign's folder."""
    campaign, number = work.campaign, work.number
    facts = round_facts(campaign, number, why_stop(campaign, number, ledger))
    pictures = round_pictures(facts, _views(campaign, number, facts))
    for name, png in pictures.items():
        (work.folder / f"{name}.png").write_bytes(png)
    (work.folder / ROUND_PAGE).write_text(round_markdown(facts, pictures))
    copy_ledger(campaign, ledger)
    work.facts.update(headline=headline(facts))
    if shows_rounds():
        publish_round(facts, pictures)


def tell_round(campaign: Campaign, number: int) -> None:
    """Write what happened in a round, which was reported, to the terminal and into the log of the current run."""
    said = product_of(campaign, "report", number).facts["headline"]
    console.print(said, highlight=False)
    get_run_logger().info("%s round %d: %s", campaign.settings.name, number, said)


def copy_ledger(campaign: Campaign, ledger: Product) -> None:
    """Put the ledger where people look for it."""
    write_atomically(campaign.ledger_file, (ledger / tables.LEDGER.file).read_bytes())


def round_facts(campaign: Campaign, number: int, reason: str | None) -> RoundFacts:
    """Gather all that the pages say of a round, from its products."""
    pool = product_of(campaign, "pool", None)
    metrics = product_of(campaign, "evaluate", number)
    classes = tables.CLASSES.read(metrics).to_pylist()
    products = [product for of_round, product in products_made(campaign) if of_round == number]
    trained = next((product.facts for product in products if product.stage == "train-seg"), {})
    stop = campaign.settings.stop
    return RoundFacts(
        campaign=campaign.settings.name,
        points=learning_curve(campaign, list(range(number + 1))),
        class_iou={row["class_name"]: row["iou"] for row in classes},
        stages=[stage_facts(product) for product in products],
        queries=_queries(campaign, number),
        pool_images=pool.facts["images"],
        pool_pixels=pool.facts["pixels"],
        images_touched=metrics.facts["images"],
        budget_clicks=stop.clicks,
        stop_reason=reason,
        unit=campaign.settings.acquisition.unit,
        upper_bound=campaign.settings.acquisition.cost == "true",
        cost_samples=_cost_samples(campaign, number),
        rounds=stop.rounds,
        target_miou=stop.target_miou,
        images_in_both=pool.facts.get("in_both", 0),
        correction=_correction(campaign, number),
        steps=trained.get("steps", 0),
        epochs=trained.get("epochs", 0),
        was_cut=trained.get("was_cut", False),
    )


def report_campaign(campaign: Campaign) -> Path:
    """Write the campaign's report, one HTML file, from the rounds that were evaluated so far."""
    done = evaluated_rounds(campaign)
    rounds, pictures = [], []
    for number in done:
        reported = find_product(campaign.stage("report", number))
        ended = number == done[-1] and reported is not None
        reason = why_stop(campaign, number, ledger_before(campaign, number)) if ended else None
        rounds.append(round_facts(campaign, number, reason))
        pictures.append(
            {path.stem: path.read_bytes() for path in sorted(reported.folder.glob("*.png"))} if reported else {}
        )
    page = campaign_html(rounds, pictures, campaign.settings.model_dump_json(indent=1, exclude_none=True))
    write_atomically(campaign.report_file, page.encode())
    return campaign.report_file


def _queries(campaign: Campaign, number: int) -> list[QueryFacts]:
    after = find_product(campaign.stage("oracle-query", number))
    if after is None:
        return []
    rows, is_predicted = Ledger(after).table.to_pylist(), campaign.settings.acquisition.cost == "learned"
    return [
        QueryFacts(
            image_id=row["image_id"],
            box=box_of(row),
            score=_known(row["score"]),
            information=_known(row["information"]),
            predicted_clicks=_known(row["predicted_clicks"]) if is_predicted else math.nan,
            **{name: row[name] for name in ("vertices", "crossings", "components")},
        )
        for row in rows
        if row["round"] == number
    ]


def _correction(campaign: Campaign, number: int) -> float | None:
    """Tell true clicks for each one predicted before this round asked, if it learned a cost."""
    chosen = find_product(campaign.stage("nms", number))
    if chosen is None or number == 0 or campaign.settings.acquisition.cost != "learned":
        return None
    correction: float | None = chosen.facts.get("correction")
    return correction


def _cost_samples(campaign: Campaign, number: int) -> list[CostSample]:
    product = find_product(campaign.stage("evaluate-cost", number))
    if product is None:
        return []
    table = tables.COST_REGIONS.read(product)
    return [
        CostSample(name, part["true"].to_numpy(), {each: part[each].to_numpy() for each in PREDICTORS})
        for name in SAMPLES
        for part in (table.filter(pc.field("sample") == name),)
    ]


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def _views(campaign: Campaign, number: int, facts: RoundFacts) -> list[RegionView]:
    """Draw the best regions on their images."""
    if not facts.queries:
        return []
    images = {image.image_id: image for image in open_pool(campaign, product_of(campaign, "pool", None)).images}
    dataset = open_images(campaign.settings.data, "pool")
    maps = maps_of(campaign, number)
    stores = [MapStore(product / MAPS) if product else None for product in (maps["information"], maps["cost"])]
    measure = MEASURES.get(campaign.settings.acquisition.information)
    views, unit = [], measure.unit if measure else ""
    for query in facts.queries[:REGIONS_SHOWN]:
        information, cost = (store.read_image(images[query.image_id]) if store else None for store in stores)
        views.append(RegionView(query, dataset.image(query.image_id), information, cost, unit))
    return views
