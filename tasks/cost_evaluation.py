"""evaluate-cost: predicted against true clicks, of the regions just asked for and of random ones.

The random ones are of the evaluation split and never of the pool: what is not labelled there stays unseen, as it would
be in practice, and cannot steer what is asked next.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from cereals_core.acquisition_settings import Acquisition
from cereals_core.clicks import region_cost
from cereals_core.cost_baselines import (
    PREDICTORS,
    SAMPLES,
    Baselines,
    clicks_per,
    edge_map,
    random_regions,
    region_edges,
)
from cereals_core.evaluation import cost_agreement
from cereals_core.grid import Box
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.workload import Workload
from tasks.evaluation import COMPARING_BYTES
from tasks.pages.wording import number
from tasks.running.device import precision_of, prepare_device
from tasks.running.images import pool_images
from tasks.running.inputs import open_inputs, stacked
from tasks.running.prefetch import prefetched
from tasks.running.stage import stage
from tasks.running.takes import COST, IMAGE_BYTES, IMAGES_READ, TRUTH_BYTES, predicting
from tasks.running.truths import evaluation_truth
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.ledger import Ledger, Row, box_of, by_image
from tasks.store.products import Product
from tasks.training import load_model

WINDOWS_AN_IMAGE = 4
MOST_RANDOM_REGIONS = 500
MOST_LABELLED_REGIONS = 256
"""Labelled regions that say how many clicks an edge is worth."""


def _images_compared(load: Workload, number: int) -> int:
    """List images whose edges are compared with clicks: of labelled and asked regions, and of some for evaluation."""
    regions = min(load.seed_images + number * load.queries, MOST_LABELLED_REGIONS) + load.queries
    return min(regions, load.images) + min(load.eval_images, _most_drawn(load.wanted))


@stage(
    "evaluate-cost",
    version=2,
    depends_on=("seed", "data", "model", "acquisition.unit", "acquisition.window_px"),
    gpu=True,
    wanted=lambda settings: settings.acquisition.cost == "learned",
    lasting=True,
    takes=predicting(COST, _images_compared, IMAGES_READ * (IMAGE_BYTES + TRUTH_BYTES) + COMPARING_BYTES),
    note=lambda facts: (
        f"rank correlation {number(facts['spearman_queried'], 2)} queried, {number(facts['spearman_random'], 2)} random"
    ),
)
def evaluate_cost(
    work: Work, pool: Product, ledger: Product, answers: Product, model: Product, features: Product | None = None
) -> None:
    """Compare the cost model and two baselines, which know the ledger before the round, with the true clicks."""
    before, settings = Ledger(ledger), work.campaign.settings
    labelled = [_row(each) for each in _some_of(before, rng(settings.seed, "evaluate-cost", work.number))]
    queried = [_row(each) for each in Ledger(answers).table.to_pylist() if each["round"] == work.number]
    _add_edges(work, pool, [*labelled, *queried])
    true, edges = (sum(each[column] for each in labelled) for column in ("true", "edges"))
    baselines = Baselines(clicks_per(before.clicks, before.pixels), clicks_per(true, edges))
    drawn = list(_random_sample(work, pool, model, features))
    for row in drawn:
        row["learned"] = float(before.spending.floored(np.array([row["learned"]]), box_of(row).pixels)[0])
    samples = dict(zip(SAMPLES, (queried, drawn), strict=True))
    for row in (row for rows in samples.values() for row in rows):
        row.update(baselines.predict(box_of(row), row["edges"]))
    regions = [{"sample": name, **row} for name, rows in samples.items() for row in rows]
    tables.COST_REGIONS.write(work.folder, regions)
    agreement = [_agreement_row(name, each, rows) for name, rows in samples.items() for each in PREDICTORS]
    tables.COST_AGREEMENT.write(work.folder, agreement)
    learned = {each["sample"]: each for each in agreement if each["predictor"] == "learned"}
    work.facts.update(regions=len(regions), **{f"spearman_{name}": row["spearman"] for name, row in learned.items()})


def _row(answered: Row) -> Row:
    names = ("image_id", "y", "x", "height", "width")
    predicted = answered["predicted_clicks"]
    return {**{name: answered[name] for name in names}, "true": answered["vertices"], "learned": predicted}


def _some_of(ledger: Ledger, stream: np.random.Generator) -> list[Row]:
    """Draw labelled regions uniformly; all if they are few."""
    count = len(ledger.table)
    chosen = stream.choice(count, min(count, MOST_LABELLED_REGIONS), replace=False)
    rows: list[Row] = ledger.table.take(np.sort(chosen)).to_pylist()
    return rows


def _add_edges(work: Work, pool: Product, rows: Sequence[Row]) -> None:
    """Add `edges`, the sum that becomes a prediction, to regions of the pool; each image is read once."""
    compared, source = by_image(rows), pool_images(work.campaign.settings.data, pool)
    with work.track(len(compared), "images") as advance:
        for image_id, edges in prefetched(lambda image_id: edge_map(source.image(image_id)), compared):
            for row in compared[image_id]:
                row["edges"] = region_edges(edges, box_of(row))
            advance()


def _random_sample(work: Work, pool: Product, model: Product, features: Product | None) -> Iterator[Row]:
    """Draw regions of the evaluation split, the same in every round: true clicks, the cost model's, and edges."""
    settings = work.campaign.settings
    cost_model = load_model(settings, 1, model).to(prepare_device(settings.compute))
    predictor = Predictor(cost_model, precision_of(settings.model))
    dataset, source = evaluation_truth(settings.data), open_inputs(work.campaign, pool, features, "eval")
    image_ids = _images_drawn(settings, dataset.image_ids)
    with work.track(len(image_ids), "images") as advance:
        read = prefetched(lambda each: (source.image(each), dataset.image(each), dataset.truth(each)), image_ids)
        for image_id, (given, image, truth) in read:
            predicted, edges = predictor.clicks(stacked([given]))[0].cpu().numpy(), edge_map(image)
            for box in _regions_drawn(settings, image_id, *image.shape[:2]):
                yield {
                    "image_id": image_id,
                    **box._asdict(),
                    "true": region_cost(truth, box).vertices,
                    "learned": float(predicted[box.cell_slices].sum(dtype=np.float64)),
                    "edges": region_edges(edges, box),
                }
            advance()


def _images_drawn(settings: CampaignSettings, image_ids: Sequence[str]) -> list[str]:
    """Draw as many images as give the most regions, uniformly."""
    drawn = rng(settings.seed, "evaluate-cost").permutation(len(image_ids))[: _most_drawn(settings.acquisition)]
    return [image_ids[index] for index in sorted(drawn)]


def _most_drawn(wanted: Acquisition) -> int:
    return MOST_RANDOM_REGIONS // (WINDOWS_AN_IMAGE if wanted.unit == "region" else 1)


def _regions_drawn(settings: CampaignSettings, image_id: str, height: int, width: int) -> list[Box]:
    if settings.acquisition.unit == "image":
        return [Box(0, 0, height, width)]
    stream = rng(settings.seed, "evaluate-cost", image_id)
    return random_regions(height, width, settings.acquisition.window_px, WINDOWS_AN_IMAGE, stream)


def _agreement_row(sample: str, predictor: str, rows: Sequence[Row]) -> Row:
    predicted, true = (np.array([row[column] for row in rows], np.float64) for column in (predictor, "true"))
    found = cost_agreement(predicted, true)
    figures = tables.COST_AGREEMENT.names[2:]
    return {"sample": sample, "predictor": predictor, **{name: getattr(found, name) for name in figures}}
