"""What networks are given of an image: the image, or where the trunk is frozen the features that stand for it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cereals_core.batches import Image, Sample, Target
from cereals_core.datasets import open_images
from cereals_core.datasets.files import Split
from cereals_core.models.build import feature_channels
from cereals_core.models.decoder import Features
from cereals_core.windows import Places, features_around, inside_of, window_of
from tasks.running.images import LabelledImages, kept_at_most_bytes, pool_images
from tasks.running.prefetch import prefetched
from tasks.store import tables
from tasks.store.features import FEATURE_BYTES, FeatureStore, feature_cells
from tasks.store.layout import Campaign
from tasks.store.pool import Pool, PoolImage
from tasks.store.products import Product


class Source(Protocol):
    """The inputs of networks for the images of a split."""

    def image(self, image_id: str) -> Any:
        """Read an image, uint8 (H, W, 3), or its features (rows, columns, channels), the finest first."""


class StoredFeatures:
    """Features of a split's images, read from disk, and kept in memory if all of them fit."""

    def __init__(self, store: FeatureStore, images: Iterable[PoolImage], channels: Sequence[int]) -> None:
        self.store, self.images = store, {each.image_id: each for each in images}
        cells = sum(feature_cells(*each.size, channels) for each in self.images.values())
        self.keeps = FEATURE_BYTES * cells <= kept_at_most_bytes()
        self._kept: dict[str, tuple[np.ndarray, ...]] = {}

    def image(self, image_id: str) -> tuple[np.ndarray, ...]:
        """Read an image's features, the finest first: (rows, columns, channels); not to be changed."""
        found = self._kept.get(image_id)
        if found is None:
            found = self.store.read_image(self.images[image_id])
            if self.keeps:
                self._kept[image_id] = found
        return found

    def around(self, image_id: str, row: int, column: int, cells: int) -> list[np.ndarray]:
        """Read the features that a window depends on, as `windows.features_around`, and no more than that from disk."""
        planes = self.image(image_id) if self.keeps else self.store.planes(self.images[image_id])
        return features_around(planes, row, column, cells)


class LabelledFeatures(Sequence[Sample]):
    """Features of the images with at least one labelled cell, each with its target."""

    def __init__(self, source: StoredFeatures, targets: Mapping[str, Target]) -> None:
        self.source, self.targets, self.image_ids = source, targets, list(targets)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: Any) -> Any:
        image_id = self.image_ids[index]
        return self.source.image(image_id), self.targets[image_id]

    def in_order(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples at these indices, read while the caller works on those before."""
        return (sample for _, sample in prefetched(self.__getitem__, indices))

    def windows_in_order(self, batches: Iterable[Places], cells: int) -> Iterator[tuple[Features, Target]]:
        """Read windows a batch at a time, ahead of the caller, as `windows.FeatureSamples` tells."""
        return (found for _, found in prefetched(lambda batch: self._windows(batch, cells), batches))

    def _windows(self, batch: Places, cells: int) -> tuple[Features, Target]:
        places = [(self.image_ids[index], int(row), int(column)) for index, row, column in batch]
        found = [self.source.around(*place, cells) for place in places]
        fine, middle, coarse = (np.stack(each) for each in zip(*found, strict=True))
        inside = np.stack([inside_of(self.targets[name].shape, row, column, cells) for name, row, column in places])
        target = np.stack([window_of(self.targets[name], row, column, cells) for name, row, column in places])
        return Features(fine, middle, coarse, inside), target


Samples = LabelledImages | LabelledFeatures


def labelled_samples(
    campaign: Campaign, pool: Product, features: Product | None, targets: dict[str, Target]
) -> Samples:
    """Open what trainings are given of the pool's images with these targets."""
    if features is None:
        return LabelledImages(pool_images(campaign.settings.data, pool), targets)
    return LabelledFeatures(open_features(campaign, features, "pool"), targets)


def open_inputs(campaign: Campaign, pool: Product, features: Product | None, split: Split) -> Source:
    """Open what networks are given of a split's images."""
    if features is not None:
        return open_features(campaign, features, split)
    data = campaign.settings.data
    return pool_images(data, pool) if split == "pool" else open_images(data, split)


def open_features(campaign: Campaign, features: Product, split: Split) -> StoredFeatures:
    """Open a split's features; those of one product are opened, and kept, once in this process."""
    settings = campaign.settings
    return _opened(features / split, features.digest, feature_channels(settings.model), settings.compute.shard_images)


@lru_cache(maxsize=2)
def _opened(folder: Path, digest: str, channels: tuple[int, ...], shard_images: int) -> StoredFeatures:
    return StoredFeatures(FeatureStore(folder), Pool(tables.POOL.read(folder), shard_images).images, channels)


def stacked(inputs: Sequence[Image]) -> Any:
    """Stack what was read of images of one size, as a `Predictor` takes it; a single one is not copied."""
    if isinstance(inputs[0], tuple):
        return tuple(map(_stacked, zip(*inputs, strict=True)))
    return _stacked(inputs)


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
