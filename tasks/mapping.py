"""info-map and cost-map: a map of each image that is not fully labelled, by shards; finished shards are kept."""

from collections.abc import Callable

import numpy as np

from cereals_core.datasets import open_dataset
from cereals_core.errors import ProductError
from cereals_core.grid import map_shape
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from tasks.device import precision_of, prepare_device
from tasks.labels import Ledger
from tasks.layout import MAPS
from tasks.maps import MapStore, Shard
from tasks.prefetch import prefetched
from tasks.products import Product
from tasks.progress import track
from tasks.stage import Work, stage
from tasks.start import open_pool
from tasks.training import load_model

ImageMap = Callable[[str, np.ndarray], np.ndarray]
"""From an image's id and pixels to its map."""


@stage(
    "info-map",
    version=1,
    depends_on=("seed", "data", "model", "acquisition.information", "acquisition.dropout_samples", "compute.precision"),
    gpu=True,
)
def info_map(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Information in every cell of the pool."""
    settings = work.campaign.settings
    predictor = _predictor(work, model, len(pool.facts["class_names"]))

    def vote_entropy(image_id: str, image: np.ndarray) -> np.ndarray:
        masks = rng(settings.seed, "info-map", work.number, image_id)
        return predictor.vote_entropy(image, settings.acquisition.dropout_samples, settings.model.dropout, masks)

    measures: dict[str, ImageMap] = {
        "entropy": lambda image_id, image: predictor.entropy(image),
        "vote_entropy": vote_entropy,
    }
    _write_maps(work, pool, ledger, measures[settings.acquisition.information])


@stage("cost-map", version=1, depends_on=("data", "model", "compute.precision"), gpu=True)
def cost_map(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Predicted clicks in every cell of the pool."""
    predictor = _predictor(work, model, 1)
    _write_maps(work, pool, ledger, lambda image_id, image: predictor.clicks(image))


def _predictor(work: Work, model: Product, outputs: int) -> Predictor:
    settings = work.campaign.settings
    device = prepare_device(settings.compute)
    return Predictor(load_model(settings, outputs, model).to(device), precision_of(settings.compute))


def _write_maps(work: Work, pool: Product, ledger: Product, image_map: ImageMap) -> None:
    images, labelled = open_pool(work.campaign, pool), Ledger(ledger)
    dataset = open_dataset(work.campaign.settings.data, "pool")
    store = MapStore.create(work.folder / MAPS, images, map_shape)
    name, done = work.folder.name.split(".")[1], 0
    with track(f"round {work.number} {name}", len(images.images), "images") as advance:
        for shard in images.shards():
            wanted = [image.image_id for image in shard.images if not labelled.is_full(image)]
            if not store.has(shard):
                maps = {}
                for image_id, image in prefetched(dataset.image, wanted):
                    maps[image_id] = image_map(image_id, image)
                    advance()
                store.write(shard, _stack(shard, maps))
            _check(store, shard, wanted)
            done += len(wanted)
    work.facts.update(images=done)


def _stack(shard: Shard, maps: dict[str, np.ndarray]) -> np.ndarray:
    absent = np.full(map_shape(shard.height, shard.width), np.nan, np.float32)
    return np.stack([maps.get(image.image_id, absent) for image in shard.images])


def _check(store: MapStore, shard: Shard, wanted: list[str]) -> None:
    finite = np.isfinite(store.read(shard)).all(axis=(1, 2))
    missing = [
        image.image_id for image, ok in zip(shard.images, finite, strict=True) if image.image_id in wanted and not ok
    ]
    if missing:
        raise ProductError(
            f"{store.folder}: maps of {missing[:3]} ({len(missing)} images) are not finite; "
            "the network has diverged (lower training.learning_rate), or the chunk is damaged (remove the folder)"
        )
