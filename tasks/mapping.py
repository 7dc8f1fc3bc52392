"""info-map, cost-map and true-cost-map: maps of the pool, by shards; finished shards are kept.

info-map and cost-map see images and nothing else, and leave out those that are fully labelled.

**true-cost-map SEES THE TRUTH OF THE WHOLE POOL**, unlabelled images included: the only input of scoring that does. It
serves the upper bound of a study, `acquisition.cost = "true"`, which is no strategy that anyone could use.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from cereals_core.clicks import click_map
from cereals_core.datasets import open_images, open_truth
from cereals_core.datasets.base import Truth
from cereals_core.errors import ProductError
from cereals_core.grid import map_shape
from cereals_core.information import MEASURES, SAMPLED_MEASURES, quantise
from cereals_core.models.base import Network
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from tasks.device import precision_of, prepare_device
from tasks.labels import Ledger
from tasks.layout import MAPS
from tasks.maps import MapStore, Pool, PoolImage, Shard
from tasks.prefetch import prefetched
from tasks.products import Product
from tasks.progress import track
from tasks.stage import Work, stage
from tasks.start import open_pool
from tasks.training import load_cost_model, load_model

Item = TypeVar("Item")


@stage(
    "info-map",
    version=1,
    depends_on=("seed", "data", "model", "acquisition.information", "acquisition.dropout_samples", "compute.precision"),
    gpu=True,
)
def info_map(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Information in every cell of the pool."""
    settings, wanted = work.campaign.settings, work.campaign.settings.acquisition
    predictor = _predictor(work, load_model(settings, len(pool.facts["class_names"]), model))

    def of_one_pass(image_id: str, image: np.ndarray) -> np.ndarray:
        return predictor.information(image, MEASURES[wanted.information])

    def of_samples(image_id: str, image: np.ndarray) -> np.ndarray:
        measure, masks = SAMPLED_MEASURES[wanted.information], rng(settings.seed, "info-map", work.number, image_id)
        return predictor.sampled_information(image, measure, wanted.dropout_samples, settings.model.dropout, masks)

    _map_images(work, pool, ledger, of_samples if wanted.needs_dropout else of_one_pass)


@stage("cost-map", version=1, depends_on=("data", "model", "compute.precision"), gpu=True)
def cost_map(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Predicted clicks in every cell of the pool."""
    predictor = _predictor(work, load_cost_model(work.campaign.settings, model))
    _map_images(work, pool, ledger, lambda image_id, image: predictor.clicks(image))


@stage("true-cost-map", version=1, depends_on=("data",))
def true_cost_map(work: Work, pool: Product) -> None:
    """TRUE clicks in every cell of every image of the pool, read from its TRUTH: an upper bound, never a strategy.

    The store is laid out as cost-map's, and rounded as it. It belongs to no round. A pixel counts 10 clicks at most, so
    a window's sum can be below its c_p.
    """

    def true_clicks(image_id: str, truth: Truth) -> np.ndarray:
        return quantise(click_map(truth.clicks, truth.labels.shape))

    truth_of = open_truth(work.campaign.settings.data, "pool").truth
    _write_maps(work, open_pool(work.campaign, pool), lambda image: True, truth_of, true_clicks)


def _predictor(work: Work, model: Network) -> Predictor:
    compute = work.campaign.settings.compute
    return Predictor(model.to(prepare_device(compute)), precision_of(compute))


def _map_images(work: Work, pool: Product, ledger: Product, image_map: Callable[[str, np.ndarray], np.ndarray]) -> None:
    """Write the map of each image that is not fully labelled."""
    labelled, image_of = Ledger(ledger), open_images(work.campaign.settings.data, "pool").image
    images = open_pool(work.campaign, pool)
    _write_maps(work, images, lambda image: not labelled.is_full(image), image_of, image_map)


def _write_maps(
    work: Work,
    pool: Pool,
    is_wanted: Callable[[PoolImage], bool],
    read: Callable[[str], Item],
    map_of: Callable[[str, Item], np.ndarray],
) -> None:
    """Write `map_of(image_id, read(image_id))` of each image that is wanted; the others' maps are NaN."""
    store = MapStore.create(work.folder / MAPS, pool, map_shape)
    name, done = work.folder.name.split(".")[1], 0
    where = name if work.round_number is None else f"round {work.number} {name}"
    with track(where, len(pool.images), "images") as advance:
        for shard in pool.shards():
            wanted = [image.image_id for image in shard.images if is_wanted(image)]
            if not store.has(shard):
                maps = {}
                for image_id, item in prefetched(read, wanted):
                    maps[image_id] = map_of(image_id, item)
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
