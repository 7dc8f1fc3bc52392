"""info-map, cost-map, class-map and true-cost-map: maps of the pool, by shards; finished shards are kept.

The first three see images and nothing else, and leave out those that are fully labelled.

**true-cost-map SEES THE TRUTH OF THE WHOLE POOL**, unlabelled images included: the only input of scoring that does. It
serves the upper bound of a study, `acquisition.cost = "true"`, which is no strategy that anyone could use.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cereals_core.clicks import click_map
from cereals_core.datasets import open_truth
from cereals_core.grid import map_shape
from cereals_core.information import MEASURES, SAMPLED_MEASURES, quantise
from cereals_core.models.base import Network
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.truth import Truth
from tasks.pages.wording import plural
from tasks.running.device import precision_of, prepare_device
from tasks.running.inputs import open_inputs, stacked
from tasks.running.prefetch import ahead
from tasks.running.shards import Asked, Job, Made, Mapper, Reader, Store, write_shards
from tasks.running.stage import stage
from tasks.running.takes import COST, IMAGES_READ, SEGMENTATION, TRUTH_BYTES, Memory, Takes, mapping
from tasks.running.work import Inputs, Work, there
from tasks.store.layout import MAPS
from tasks.store.ledger import Ledger
from tasks.store.maps import MapStore
from tasks.store.pool import Pool, PoolImage, Shard, open_pool
from tasks.store.products import Product
from tasks.training import load_model

Opener = Callable[[Work, Inputs], tuple[Reader, Mapper]]
"""Opens data and network on the worker that needs them."""
SHARD_CELL_BYTES = 8
"""What writing a shard holds for each cell: its maps, and the same read again to be checked."""


def _faster(settings: CampaignSettings) -> str:
    samples = settings.acquisition.dropout_samples
    sampled = settings.acquisition.needs_dropout
    return f"lower acquisition.dropout_samples = {samples}" if sampled else SEGMENTATION.smaller(settings)


def _note(facts: Mapping[str, Any]) -> str:
    return plural(facts["images"], "image")


@stage(
    "info-map",
    version=2,
    depends_on=(
        "seed",
        "data",
        "model",
        "acquisition.information",
        "acquisition.dropout_samples",
        "acquisition.batch_images",
    ),
    gpu=True,
    where="shards",
    wanted=lambda settings: not settings.acquisition.is_drawn,
    takes=replace(mapping(SEGMENTATION, SHARD_CELL_BYTES), faster=_faster),
    note=_note,
)
def info_map(work: Work, pool: Product, ledger: Product, model: Product, features: Product | None = None) -> None:
    """Map the information in every cell of the pool."""
    _map_images(work, _information, {"pool": pool, "ledger": ledger, "model": model, "features": features})


def _information(work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    settings, wanted = work.campaign.settings, work.campaign.settings.acquisition
    predictor = _segmenting(work, inputs)

    def of_one_pass(image_ids: Sequence[str], images: Sequence[Any]) -> Sequence[Tensor]:
        return [predictor.information(stacked(images), MEASURES[wanted.information])]

    def of_samples(image_ids: Sequence[str], images: Sequence[Any]) -> Sequence[Tensor]:
        measure = SAMPLED_MEASURES[wanted.information]
        streams = [rng(settings.seed, "info-map", work.number, image_id) for image_id in image_ids]
        samples, dropout = wanted.dropout_samples, settings.model.dropout
        return [predictor.sampled_information(stacked(images), measure, samples, dropout, streams)]

    return _pool_reader(work, inputs), of_samples if wanted.needs_dropout else of_one_pass


def _pool_reader(work: Work, inputs: Inputs) -> Reader:
    return open_inputs(work.campaign, there(inputs["pool"]), inputs.get("features"), "pool").image


@stage(
    "cost-map",
    version=2,
    depends_on=("data", "model", "acquisition.batch_images"),
    gpu=True,
    where="shards",
    wanted=lambda settings: settings.acquisition.cost == "learned",
    takes=mapping(COST, SHARD_CELL_BYTES),
    note=_note,
)
def cost_map(work: Work, pool: Product, ledger: Product, model: Product, features: Product | None = None) -> None:
    """Map the predicted clicks in every cell of the pool."""
    _map_images(work, _clicks, {"pool": pool, "ledger": ledger, "model": model, "features": features})


def _clicks(work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    predictor = _predictor(work, load_model(work.campaign.settings, 1, there(inputs["model"])))
    return _pool_reader(work, inputs), lambda image_ids, images: [predictor.clicks(stacked(images))]


@stage(
    "class-map",
    version=1,
    depends_on=("data", "model", "acquisition.batch_images"),
    gpu=True,
    where="shards",
    wanted=lambda settings: settings.acquisition.needs_classes,
    takes=mapping(SEGMENTATION, SHARD_CELL_BYTES),
    note=_note,
)
def class_map(work: Work, pool: Product, ledger: Product, model: Product, features: Product | None = None) -> None:
    """Map the predicted class of every cell of the pool, from one pass without dropout, and count the cells of each."""
    _map_images(work, _classes, {"pool": pool, "ledger": ledger, "model": model, "features": features})
    store, cells = MapStore(work.folder / MAPS), np.zeros(len(pool.facts["class_names"]), np.int64)
    for shard in open_pool(work.campaign, pool).shards():
        maps = store.read(shard)
        cells += np.bincount(maps[np.isfinite(maps)].astype(np.uint8), minlength=len(cells))
    work.facts.update(cells=cells.tolist())


def _classes(work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    predictor = _segmenting(work, inputs)
    return _pool_reader(work, inputs), lambda image_ids, images: [predictor.classes(stacked(images))]


@stage(
    "true-cost-map",
    version=2,
    depends_on=("data",),
    where="shards",
    wanted=lambda settings: settings.acquisition.cost == "true",
    takes=Takes(
        memory=lambda load: Memory(
            arrays=IMAGES_READ * TRUTH_BYTES * prod(load.largest) + SHARD_CELL_BYTES * load.shard_cells
        ),
        disk_bytes=lambda load, number: load.map_bytes,
    ),
    note=_note,
)
def true_cost_map(work: Work, pool: Product) -> None:
    """Map TRUE clicks in every cell of every image of the pool, from its TRUTH: an upper bound, never a strategy.

    The store is laid out as cost-map's, and rounded as it. It belongs to no round. A pixel counts 10 clicks at most, so
    a window's sum can be below its c_p.
    """
    _write_maps(work, _true_clicks, {}, open_pool(work.campaign, pool), lambda image: True)


def _true_clicks(work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    def of_truth(image_ids: Sequence[str], truths: Sequence[Truth]) -> Sequence[Tensor]:
        maps = (quantise(click_map(each.clicks, each.labels.shape)) for each in truths)
        return [torch.from_numpy(np.stack(list(maps)))]

    return open_truth(work.campaign.settings.data, "pool").truth, of_truth


def _segmenting(work: Work, inputs: Inputs) -> Predictor:
    classes = len(there(inputs["pool"]).facts["class_names"])
    return _predictor(work, load_model(work.campaign.settings, classes, there(inputs["model"])))


def _predictor(work: Work, model: Network) -> Predictor:
    settings = work.campaign.settings
    return Predictor(model.to(prepare_device(settings.compute)), precision_of(settings.model), ahead)


def _map_images(work: Work, opener: Opener, inputs: Inputs) -> None:
    """Write the map of each image that is not fully labelled."""
    labelled, pool = Ledger(there(inputs["ledger"])), open_pool(work.campaign, there(inputs["pool"]))
    _write_maps(work, opener, inputs, pool, lambda image: not labelled.is_full(image))


def _write_maps(work: Work, opener: Opener, inputs: Inputs, pool: Pool, is_wanted: Callable[[PoolImage], bool]) -> None:
    """Write the maps of the images that are wanted, shard by shard on the workers; the others' maps are NaN."""
    MapStore.create(work.folder / MAPS, pool)
    asked = [
        Asked(shard, tuple(image.image_id for image in shard.images if is_wanted(image))) for shard in pool.shards()
    ]
    write_shards(work, Job(opener, _store), inputs, asked)


def _store(work: Work, inputs: Inputs) -> "_Maps":
    return _Maps(MapStore(work.folder / MAPS))


class _Maps(Store):
    """Where maps go; those of images that were not asked for are NaN."""

    remedy = "the network has diverged; lower training.learning_rate"

    def __init__(self, maps: MapStore) -> None:
        self.maps, self.folder = maps, maps.folder

    def has(self, shard: Shard) -> bool:
        """Tell whether a shard was written."""
        return self.maps.has(shard)

    def write(self, shard: Shard, made: Made) -> None:
        """Write a shard's maps."""
        absent = np.full(map_shape(shard.height, shard.width), np.nan, np.float16)
        self.maps.write(shard, np.stack([made.get(image.image_id, (absent,))[0] for image in shard.images]))

    def not_finite(self, asked: Asked) -> list[str]:
        """Name the images whose maps are not finite in every cell."""
        finite = np.isfinite(self.maps.read(asked.shard)).all(axis=(1, 2))
        found = {image.image_id: bool(ok) for image, ok in zip(asked.shard.images, finite, strict=True)}
        return [image_id for image_id in asked.image_ids if not found[image_id]]
