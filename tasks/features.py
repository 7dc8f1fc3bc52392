"""features: what a frozen encoder computes of every image of both splits, once; finished shards are kept."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cereals_core.datasets import open_images
from cereals_core.datasets.files import Split
from cereals_core.models.build import build_encoder, feature_channels
from cereals_core.models.footprint import encoding_bytes, outline
from cereals_core.projection import Projection, fit
from cereals_core.workload import Workload
from tasks.pages.wording import plural, size
from tasks.running.device import precision_of, prepare_device
from tasks.running.images import pool_images
from tasks.running.prefetch import prefetched
from tasks.running.shards import Asked, Job, Made, Mapper, Reader, Store, write_shards
from tasks.running.stage import stage
from tasks.running.takes import IMAGE_BYTES, IMAGES_READ, Memory, Takes, feature_numbers, fewer_pixels
from tasks.running.work import Inputs, Work, there
from tasks.store import tables
from tasks.store.features import FEATURE_BYTES, FeatureStore, feature_cells
from tasks.store.pool import Pool, Shard, group_name, open_pool
from tasks.store.products import Product
from tasks.store.storage import make_folder, written_whole
from tasks.training import load_into

PROJECTION = "projection.npz"
FITTED_IMAGES = 64
"""Images on which principal components are fitted."""


def _memory(load: Workload) -> Memory:
    batch_images, shard_images = load.wanted.batch_images, load.settings.compute.shard_images
    encoder = outline(lambda: build_encoder(load.settings.model), precision_of(load.settings.model))
    read = IMAGE_BYTES * prod(load.largest) * (IMAGES_READ + 2 * batch_images)
    image = feature_cells(*load.largest, feature_channels(load.settings.model))
    shard = FEATURE_BYTES * 2 * image * min(shard_images, load.images)
    return Memory(encoding_bytes(encoder, *load.largest, batch_images), read + shard)


@stage(
    "features",
    version=1,
    depends_on=("data", "model.name", "model.feature_channels", "model.precision", "acquisition.batch_images"),
    gpu=True,
    where="shards",
    wanted=lambda settings: settings.model.trunk == "frozen",
    takes=Takes(
        units=lambda load, number: load.images + load.eval_images,
        memory=_memory,
        disk_bytes=lambda load, number: FEATURE_BYTES * feature_numbers(load),
        lighter=lambda settings: (
            f"lower compute.shard_images = {settings.compute.shard_images}, or {fewer_pixels(settings)}"
        ),
    ),
    note=lambda facts: f"{plural(facts['images'], 'image')}, {size(facts['image_bytes'])} each",
)
def features(work: Work, pool: Product, pretrained: Product) -> None:
    """Compute what the frozen encoder sees in every image of the pool and of the evaluation split."""
    splits: dict[Split, Pool] = {"pool": open_pool(work.campaign, pool), "eval": _evaluated(work)}
    inputs = {"pool": pool, "pretrained": pretrained}
    channels = feature_channels(work.campaign.settings.model)
    _project(work, inputs, splits["pool"])
    for split, images in splits.items():
        make_folder(work.folder / split)
        tables.POOL.write(work.folder / split, _rows(images))
        FeatureStore.create(work.folder / split, images, channels)
        asked = [Asked(shard, tuple(image.image_id for image in shard.images)) for shard in images.shards()]
        write_shards(work, Job(partial(_opened, split), partial(_store, split), split), inputs, asked)
    every = [image for images in splits.values() for image in images.images]
    numbers = sum(feature_cells(*image.size, channels) for image in every)
    work.facts.update(image_bytes=FEATURE_BYTES * numbers // len(every), channels=list(channels))


def _project(work: Work, inputs: Inputs, pool: Pool) -> None:
    """Fit the principal components that are to be kept, on some images of the pool from its first to its last."""
    if work.campaign.settings.model.feature_channels is None or (work.folder / PROJECTION).exists():
        return
    step = -(-len(pool.images) // FITTED_IMAGES)
    some = [image.image_id for image in pool.images[::step]]
    (found,) = work.each(partial(_fit, work, inputs), [some])
    with written_whole(work.folder / PROJECTION) as stream:
        np.savez(stream, *(array for projection in found for array in projection))


def _fit(work: Work, inputs: Inputs, image_ids: Sequence[str]) -> list[Projection]:
    read, encoded = _encoder(work, inputs, "pool")
    made = [encoded(np.stack([image])) for _, image in prefetched(read, image_ids)]
    kept_channels = feature_channels(work.campaign.settings.model)
    return [
        fit((each.reshape(-1, each.shape[-1]).cpu().numpy() for each in of_stride), count)
        for of_stride, count in zip(zip(*made, strict=True), kept_channels, strict=True)
    ]


def _projections(work: Work, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """Read mean and components for each stride; none where all channels are kept."""
    if work.campaign.settings.model.feature_channels is None:
        return []
    with (work.folder / PROJECTION).open("rb") as stream, np.load(stream) as stored:
        arrays = [torch.from_numpy(stored[name]).to(device) for name in stored.files]
    return list(zip(arrays[::2], arrays[1::2], strict=True))


def _evaluated(work: Work) -> Pool:
    """List the images for evaluation with their sizes, which are read off the images themselves."""
    folder, shard_images = work.folder / "eval", work.campaign.settings.compute.shard_images
    if (folder / tables.POOL.file).exists():
        return Pool(tables.POOL.read(folder), shard_images)
    source, rows, members = open_images(work.campaign.settings.data, "eval"), [], Counter[str]()
    for image_id, (height, width) in prefetched(lambda each: source.image(each).shape[:2], source.image_ids):
        group = group_name(height, width)
        rows.append({"image_id": image_id, "height": height, "width": width, "group": group, "row": members[group]})
        members[group] += 1
    return Pool(tables.POOL.of(rows), shard_images)


def _rows(images: Pool) -> list[dict[str, Any]]:
    return [{name: getattr(image, name) for name in tables.POOL.names} for image in images.images]


def _opened(split: Split, work: Work, inputs: Inputs) -> tuple[Reader, Mapper]:
    read, encoded = _encoder(work, inputs, split)
    projections = _projections(work, prepare_device(work.campaign.settings.compute))

    @torch.inference_mode()
    def made_of(image_ids: Sequence[str], images: Sequence[np.ndarray]) -> Sequence[Tensor]:
        found = encoded(np.stack(images))
        if projections:
            found = [(each - mean) @ parts for each, (mean, parts) in zip(found, projections, strict=True)]
        return [each.half() for each in found]

    return read, made_of


def _encoder(work: Work, inputs: Inputs, split: Split) -> tuple[Reader, Callable[[np.ndarray], list[Tensor]]]:
    """Open a split's images and the encoder, which gives float32 (b, rows, columns, channels) at each stride."""
    settings = work.campaign.settings
    encoder = build_encoder(settings.model)
    load_into(encoder, there(inputs["pretrained"]), partial(_load_encoder, encoder))
    device, precision = prepare_device(settings.compute), precision_of(settings.model)
    encoder = encoder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def encoded(images: np.ndarray) -> list[Tensor]:
        batch = torch.from_numpy(images).to(device, non_blocking=True).permute(0, 3, 1, 2)
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            found = encoder(batch)
        return [each.permute(0, 2, 3, 1).float() for each in found.maps]

    data = settings.data
    source = pool_images(data, there(inputs["pool"])) if split == "pool" else open_images(data, split)
    return source.image, encoded


def _load_encoder(encoder: nn.Module, weights: Mapping[str, Tensor]) -> None:
    prefix = "encoder."
    own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    encoder.load_state_dict(own, strict=False)


def _store(split: str, work: Work, inputs: Inputs) -> "_Features":
    return _Features(FeatureStore(work.folder / split))


class _Features(Store):
    """Where features go."""

    remedy = "what the encoder gives is too large for half precision; take another model.name or model.weights"

    def __init__(self, features: FeatureStore) -> None:
        self.features, self.folder = features, features.folder

    def has(self, shard: Shard) -> bool:
        """Tell whether a shard was written, at every stride."""
        return self.features.has(shard)

    def write(self, shard: Shard, made: Made) -> None:
        """Write a shard's features."""
        self.features.write(shard, [np.stack(each) for each in zip(*made.values(), strict=True)])

    def not_finite(self, asked: Asked) -> list[str]:
        """Name the images whose features are not finite in every cell."""
        read = ((image.image_id, self.features.read_image(image)) for image in asked.shard.images)
        return [image_id for image_id, found in read if not all(np.isfinite(each).all() for each in found)]
