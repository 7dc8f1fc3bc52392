"""info-map, cost-map and true-cost-map: maps of the pool, by shards; finished shards are kept.

info-map and cost-map see images and nothing else, and leave out those that are fully labelled.

**true-cost-map SEES THE TRUTH OF THE WHOLE POOL**, unlabelled images included: the only input of scoring that does. It
serves the upper bound of a study, `acquisition.cost = "true"`, which is no strategy that anyone could use.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cereals_core.clicks import click_map
from cereals_core.datasets import open_truth
from cereals_core.errors import ProductError
from cereals_core.grid import map_shape
from cereals_core.information import MEASURES, SAMPLED_MEASURES, quantise
from cereals_core.models.base import Network
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from cereals_core.settings import CampaignSettings
from cereals_core.truth import Truth
from tasks.pages.wording import plural
from tasks.running.device import fetched, precision_of, prepare_device
from tasks.running.images import pool_images
from tasks.running.prefetch import prefetched
from tasks.running.stage import stage
from tasks.running.takes import COST, IMAGES_READ, SEGMENTATION, TRUTH_BYTES, Memory, Takes, mapping
from tasks.running.work import Work
from tasks.running.workers import kept
from tasks.store.layout import MAPS
from tasks.store.ledger import Ledger
from tasks.store.maps import MapStore
from tasks.store.pool import Pool, PoolImage, Shard, open_pool
from tasks.store.products import Product
from tasks.telling.progress import advance_here
from tasks.training import load_cost_model, load_model

Inputs = Mapping[str, Product]


@dataclass(frozen=True)
class Asked:
    """A shard, and those of its images whose maps are wanted."""

    shard: Shard
    image_ids: tuple[str, ...]


Reader = Callable[[str], Any]
"""What an image's map is made from, by the image's id; called ahead, in threads."""
Mapper = Callable[[Sequence[str], Sequence[Any]], Tensor]
"""Maps of a batch of images of one size, from their ids and what was read: float16 (B, rows, columns), anywhere."""
Opener = Callable[[Work, Inputs], tuple[Reader, Mapper]]
"""Opens data and network on the worker that needs them."""
SHARD_CELL_BYTES = 8
"""What writing a shard holds for each cell: its maps, and the same read again to be checked."""
SHARDS_A_CALL = 4
"""Shards that a worker gets at a time at most, so that it can read the next one's images while it computes."""


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
    wanted=lambda settings: settings.acquisition.information != "random",
    takes=replace(mapping(SEGMENTATION, SHARD_CELL_BYTES), faster=_faster),
    note=_note,
)
def info_map(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Map the information in every cell of the pool."""
    _map_images(work, _information, {"pool": pool, "ledger": ledger, "model": model})


def _information(work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    settings, wanted = work.campaign.settings, work.campaign.settings.acquisition
    predictor = _predictor(work, load_model(settings, len(inputs["pool"].facts["class_names"]), inputs["model"]))

    def of_one_pass(image_ids: Sequence[str], images: Sequence[np.ndarray]) -> Tensor:
        return predictor.information(np.stack(images), MEASURES[wanted.information])

    def of_samples(image_ids: Sequence[str], images: Sequence[np.ndarray]) -> Tensor:
        measure = SAMPLED_MEASURES[wanted.information]
        streams = [rng(settings.seed, "info-map", work.number, image_id) for image_id in image_ids]
        return predictor.sampled_information(
            np.stack(images), measure, wanted.dropout_samples, settings.model.dropout, streams
        )

    return pool_images(settings.data, inputs["pool"]).image, of_samples if wanted.needs_dropout else of_one_pass


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
def cost_map(work: Work, pool: Product, ledger: Product, model: Product) -> None:
    """Map the predicted clicks in every cell of the pool."""
    _map_images(work, _clicks, {"pool": pool, "ledger": ledger, "model": model})


def _clicks(work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    predictor = _predictor(work, load_cost_model(work.campaign.settings, inputs["model"]))
    source = pool_images(work.campaign.settings.data, inputs["pool"])
    return source.image, lambda image_ids, images: predictor.clicks(np.stack(images))


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
    def of_truth(image_ids: Sequence[str], truths: Sequence[Truth]) -> Tensor:
        return torch.from_numpy(np.stack([quantise(click_map(each.clicks, each.labels.shape)) for each in truths]))

    return open_truth(work.campaign.settings.data, "pool").truth, of_truth


def _predictor(work: Work, model: Network) -> Predictor:
    settings = work.campaign.settings
    return Predictor(model.to(prepare_device(settings.compute)), precision_of(settings.model))


def _map_images(work: Work, opener: Opener, inputs: Inputs) -> None:
    """Write the map of each image that is not fully labelled."""
    labelled, pool = Ledger(inputs["ledger"]), open_pool(work.campaign, inputs["pool"])
    _write_maps(work, opener, inputs, pool, lambda image: not labelled.is_full(image))


def _write_maps(work: Work, opener: Opener, inputs: Inputs, pool: Pool, is_wanted: Callable[[PoolImage], bool]) -> None:
    """Write the maps of the images that are wanted, shard by shard on the workers; the others' maps are NaN."""
    store = MapStore.create(work.folder / MAPS, pool)
    asked = [
        Asked(shard, tuple(image.image_id for image in shard.images if is_wanted(image))) for shard in pool.shards()
    ]
    missing = [each for each in asked if not _is_there(store, each)]
    images, to_do = (sum(len(each.image_ids) for each in some) for some in (asked, missing))
    with work.track(images, "images", images - to_do) as advance:
        size = min(SHARDS_A_CALL, max(len(missing) // work.lanes, 1))
        calls = [missing[start : start + size] for start in range(0, len(missing), size)]
        for count in work.each(partial(_write_shards, opener, work, inputs), calls):
            for _ in range(count):
                advance()
    work.facts.update(images=images)


def _write_shards(opener: Opener, work: Work, inputs: Inputs, asked: Sequence[Asked]) -> int:
    """Write the maps of some shards; returns how many of them are still to be counted."""
    read, maps_of = kept((work.stage, work.folder), lambda: opener(work, inputs))
    store, uncounted = MapStore(work.folder / MAPS), 0
    found = _maps(read, maps_of, asked, work.campaign.settings.acquisition.batch_images)
    for each in asked:
        maps = {}
        for image_id, cells in islice(found, len(each.image_ids)):
            maps[image_id] = cells
            uncounted += not advance_here()
        store.write(each.shard, _stack(each.shard, maps))
        _refuse_unusable(store, each)
    return uncounted


def _maps(read: Reader, maps_of: Mapper, asked: Sequence[Asked], size: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the maps of all images of these shards, in batches of so many, while the next images are read."""
    items = prefetched(read, chain.from_iterable(each.image_ids for each in asked))
    batches = [each.image_ids[start : start + size] for each in asked for start in range(0, len(each.image_ids), size)]
    made = (maps_of(*_padded(batch, [item for _, item in islice(items, len(batch))], size)) for batch in batches)
    for batch, maps in zip(batches, fetched(made), strict=True):
        yield from zip(batch, maps, strict=False)


def _padded(image_ids: Sequence[str], items: Sequence[Any], size: int) -> tuple[Sequence[str], Sequence[Any]]:
    """Fill a batch to the full size with its last image: on the size depend the last bits of all its maps."""
    missing = size - len(items)
    return [*image_ids, *[image_ids[-1]] * missing], [*items, *[items[-1]] * missing]


def _stack(shard: Shard, maps: dict[str, np.ndarray]) -> np.ndarray:
    absent = np.full(map_shape(shard.height, shard.width), np.nan, np.float16)
    return np.stack([maps.get(image.image_id, absent) for image in shard.images])


def _refuse_unusable(store: MapStore, asked: Asked) -> None:
    """Raise ProductError for maps that are not finite in every cell."""
    unusable = _not_finite(store, asked)
    if unusable:
        raise ProductError(
            f"{store.folder}: maps of {unusable[:3]} ({len(unusable)} images) are not finite: "
            "the network has diverged; lower training.learning_rate"
        )


def _is_there(store: MapStore, asked: Asked) -> bool:
    """Tell whether the shard was written before, whole."""
    try:
        return store.has(asked.shard) and not _not_finite(store, asked)
    except ProductError:
        return False


def _not_finite(store: MapStore, asked: Asked) -> list[str]:
    finite = np.isfinite(store.read(asked.shard)).all(axis=(1, 2))
    found = {image.image_id: bool(ok) for image, ok in zip(asked.shard.images, finite, strict=True)}
    return [image_id for image_id in asked.image_ids if not found[image_id]]
