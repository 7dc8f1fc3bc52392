"""evaluate: mIoU on the evaluation split, beside what the labels have cost so far."""

import numpy as np

from cereals_core.evaluation import confusion, iou, mean_iou
from cereals_core.prediction import Predictor
from tasks.pages.wording import number
from tasks.running.device import precision_of, prepare_device
from tasks.running.inputs import open_inputs, stacked
from tasks.running.prefetch import prefetched
from tasks.running.stage import stage
from tasks.running.takes import IMAGE_BYTES, IMAGES_READ, SEGMENTATION, TRUTH_BYTES, predicting
from tasks.running.truths import evaluation_truth
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.ledger import Ledger
from tasks.store.products import Product
from tasks.training import load_model

COMPARING_BYTES = 32
"""What comparing one segmentation with its truth holds for each pixel: four int64 arrays at most."""


@stage(
    "evaluate",
    version=1,
    depends_on=("data", "model"),
    gpu=True,
    asks=False,
    lasting=True,
    takes=predicting(
        SEGMENTATION,
        lambda load, number: load.eval_images,
        IMAGES_READ * (IMAGE_BYTES + TRUTH_BYTES) + COMPARING_BYTES,
        upsampled=True,
    ),
    note=lambda facts: f"mIoU {number(facts['miou'], 4)}",
)
def evaluate(work: Work, pool: Product, ledger: Product, model: Product, features: Product | None = None) -> None:
    """Segment the evaluation split at full resolution and compare with its truth."""
    settings, class_names = work.campaign.settings, pool.facts["class_names"]
    device = prepare_device(settings.compute)
    predictor = Predictor(load_model(settings, len(class_names), model).to(device), precision_of(settings.model))
    dataset, source = evaluation_truth(settings.data), open_inputs(work.campaign, pool, features, "eval")
    total = np.zeros((len(class_names), len(class_names)), np.int64)
    with work.track(len(dataset.image_ids), "images") as advance:
        pairs = prefetched(lambda image_id: (source.image(image_id), dataset.truth(image_id)), dataset.image_ids)
        for _, (image, truth) in pairs:
            height, width = truth.labels.shape
            predicted = predictor.segmentation(stacked([image]), (height, width))[0].cpu().numpy()
            total += confusion(truth.labels, predicted, len(class_names))
            advance()
    spent = Ledger(ledger)
    metrics = {
        "round": work.number,
        "miou": mean_iou(total),
        "clicks": spent.clicks,
        "pixels": spent.pixels,
        "regions": len(spent.table),
        "images": len(spent.boxes),
    }
    tables.METRICS.write(work.folder, [metrics])
    classes = [{"class_name": name, "iou": value} for name, value in zip(class_names, iou(total).tolist(), strict=True)]
    tables.CLASSES.write(work.folder, classes)
    work.facts.update(metrics)
