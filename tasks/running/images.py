"""Images that are decoded once and kept: the whole pool if it fits into memory, else as many labelled ones as do."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import torch

from cereals_core.batches import Image, Sample
from cereals_core.data_settings import Data
from cereals_core.datasets import open_images
from cereals_core.datasets.base import ImageSource
from tasks.running.memory import available_bytes
from tasks.running.prefetch import prefetched
from tasks.store.products import Product

KEPT_SHARE = 0.25
"""Share of the memory that the process may hold, and of what a CUDA device has free, for images that are kept."""


def kept_at_most_bytes() -> float:
    """Tell the bytes of decoded images that a process keeps, as memory is now; each CUDA device may keep as many."""
    return KEPT_SHARE * available_bytes() / max(torch.cuda.device_count(), 1)


class KeptImages:
    """A split's images, each decoded once."""

    def __init__(self, source: ImageSource) -> None:
        self.class_names, self.image_ids, self._source = source.class_names, source.image_ids, source
        self._kept: dict[str, np.ndarray] = {}

    def image(self, image_id: str) -> np.ndarray:
        """Return the image as the source gives it; not to be changed."""
        if image_id not in self._kept:
            self._kept[image_id] = self._source.image(image_id)
        return self._kept[image_id]


def pool_images(data: Data, pool: Product) -> ImageSource:
    """Open the pool's images; if all of them fit into memory, they are decoded once in this process, whatever asks."""
    return _kept_images(data) if pool_fits(pool.facts["pixels"]) else open_images(data, "pool")


def pool_fits(pixels: int) -> bool:
    """Tell whether a pool of so many pixels fits into the memory for images that are kept."""
    return 3 * pixels <= kept_at_most_bytes()


@lru_cache(maxsize=1)
def _kept_images(data: Data) -> KeptImages:
    return KeptImages(open_images(data, "pool"))


class LabelledImages(Sequence[Sample]):
    """The images with at least one labelled cell, each with its target."""

    def __init__(self, source: ImageSource, targets: dict[str, np.ndarray]) -> None:
        self.source, self.targets = source, targets
        self.image_ids = list(targets)
        self._kept: dict[str, Image] = {}
        self._kept_bytes = 0
        self._keeping = Lock()

    def __len__(self) -> int:
        return len(self.image_ids)

    def __getitem__(self, index: Any) -> Any:
        image_id = self.image_ids[index]
        image = self._kept.get(image_id)
        return self._read(image_id) if image is None else image, self.targets[image_id]

    def in_order(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the samples at these indices, decoded while the caller works on those before, unless all are kept."""
        if len(self._kept) == len(self):
            return map(self.__getitem__, indices)
        return (sample for _, sample in prefetched(self.__getitem__, indices))

    def move_to(self, device: torch.device, room_bytes: float) -> None:
        """Move images that are kept to where the network is, as many as fit into so much room."""
        for image_id, image in self._kept.items():
            room_bytes -= image.nbytes
            if room_bytes < 0:
                return
            self._kept[image_id] = torch.as_tensor(image).to(device)

    def _read(self, image_id: str) -> np.ndarray:
        image = self.source.image(image_id)
        with self._keeping:
            if self._kept_bytes + image.nbytes <= kept_at_most_bytes():
                self._kept[image_id] = image
                self._kept_bytes += image.nbytes
        return image
