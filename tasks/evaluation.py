"""evaluate: mIoU on the evaluation split, beside what the labels have cost so far."""

import numpy as np

from cereals_core.datasets import open_truth
from cereals_core.evaluation import confusion, iou, mean_iou
from cereals_core.prediction import Predictor
from tasks.running.device import precision_of, prepare_device
from tasks.running.prefetch import prefetched
from tasks.running.stage import Work, stage
from tasks.store import tables
from tasks.store.layout import CLASSES, METRICS
from tasks.store.ledger import Ledger
from tasks.store.products import Product
from tasks.telling.progress import track
from tasks.training import load_model


@stage("evaluate", version=1, depends_on=("data", "model", "compute.precision"), gpu=True)
def evaluate(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Segment the evaluation split at full resolution and compare with its truth."""
    settings, class_names = work.campaign.settings, pool.facts["class_names"]
    device = prepare_device(settings.compute)
    predictor = Predictor(load_model(settings, len(class_names), model).to(device), precision_of(settings.compute))
    dataset = open_truth(settings.data, "eval")
    total = np.zeros((len(class_names), len(class_names)), np.int64)
    with track(f"round {work.number} evaluate", len(dataset.image_ids), "images") as advance:
        pairs = prefetched(lambda image_id: (dataset.image(image_id), dataset.truth(image_id)), dataset.image_ids)
        for _, (image, truth) in pairs:
            total += confusion(truth.labels, predictor.segmentation(image[None])[0].cpu().numpy(), len(class_names))
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
    tables.write_table(work.folder / METRICS, tables.METRICS, [metrics])
    classes = [{"class_name": name, "iou": value} for name, value in zip(class_names, iou(total).tolist(), strict=True)]
    tables.write_table(work.folder / CLASSES, tables.CLASSES, classes)
    work.facts.update(metrics)
