"""What a step of training computes of whole images: all of each, or the crops that its labelled cells depend on.

Images weigh alike, however much of them is labelled: a step's loss is the mean over its images of each image's own
mean over its labelled cells. By cropping, only those parts of an image are computed that its labelled cells depend on;
each adds its share to the gradient, so that loss and gradient are those of masking but for rounding: sums are taken in
another order, and convolutions of another shape may be computed in another way.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from cereals_core.augmentation import changed_colours, flipped
from cereals_core.cropping import Crop, crops
from cereals_core.grid import STRIDE_PX, VOID
from cereals_core.models.base import Network
from cereals_core.models.decoder import Features
from cereals_core.models.dropout import draw_masks
from cereals_core.network_settings import Training
from cereals_core.shapes import Bool, Float32, UInt8

Image = Any
"""RGB, uint8 (H, W, 3), in main memory or where the network is; or features of an image, a tuple of float16 (rows,
columns, channels), the finest first."""
Target = UInt8[np.ndarray, "..."] | Float32[np.ndarray, "..."]
"""At stride 8: labels, or clicks, NaN where nothing is labelled."""
Sample = tuple[Image, Target]
"""Image and its target."""
InOrder = Callable[[Iterable[int]], Iterable[Sample]]
"""Reader of the samples at these indices, in this order."""
Thing = TypeVar("Thing")


class Part(NamedTuple):
    """A part of a step that goes through the network as one: a crop, an image, or windows of features."""

    image: Any
    """`Image`, or `Features` of arrays (b, rows, columns, channels)."""
    target: Target
    """With the cells that count here alone; for `Features` (b, rows, columns)."""
    masks: list[Tensor]
    share: float
    """Weight of the part's mean loss in the loss of its image, or of its step."""


class Batches(ABC):
    """Steps of an epoch as parts, for a network on its device; `dropout` as of `draw_masks`."""

    def __init__(self, model: Network, settings: Training, dropout: float, device: torch.device) -> None:
        self.model, self.settings, self.dropout, self.device = model, settings, dropout, device

    @abstractmethod
    def of_epoch(
        self, samples: Sequence[Sample], in_order: InOrder | None, rng: np.random.Generator
    ) -> Iterator[Sequence[Sequence[Part]]]:
        """Yield a step at a time: the parts of each of its images, or of its windows.

        The last step of an epoch takes what is left. `in_order` may know a faster way to the samples than one after
        the other.
        """

    def masks(self, rng: np.random.Generator, height: int, width: int, count: int = 1) -> list[Tensor]:
        """Draw the dropout masks of so many images, or windows, of one size in pixels."""
        shapes = [(count, *shape[1:]) for shape in self.model.mask_shapes(height, width)]
        return draw_masks(rng, shapes, self.dropout, self.device)

    def augmented(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Flip and recolour an image as the settings say; nothing is drawn for what they do not say."""
        if "flip" in self.settings.augment and rng.random() < 0.5:
            sample = flipped(*sample)
        if "colour" in self.settings.augment and not isinstance(sample[0], tuple):
            sample = changed_colours(np.asarray(sample[0]), rng), sample[1]
        return sample


class ImageBatches(Batches):
    """Steps of `batch_images` images."""

    def of_epoch(
        self, samples: Sequence[Sample], in_order: InOrder | None, rng: np.random.Generator
    ) -> Iterator[Sequence[Sequence[Part]]]:
        """Yield a step at a time: the parts of each of its images."""
        order = rng.permutation(len(samples))
        taken = map(samples.__getitem__, order) if in_order is None else in_order(order)
        return ([self._parts(each, rng) for each in some] for some in in_batches(taken, self.settings.batch_images))

    def _parts(self, sample: Sample, rng: np.random.Generator) -> list[Part]:
        """Return what is computed of an image; draws its masks."""
        image, target = self.augmented(sample, rng)
        if isinstance(image, tuple):
            rows, columns = target.shape
            masks = self.masks(rng, rows * STRIDE_PX, columns * STRIDE_PX)
            return [Part(Features(*(each[None] for each in image)), target[None], masks, 1.0)]
        height, width = image.shape[:2]
        masks = self.masks(rng, height, width)
        context_px = self.model.context_px if self.settings.method == "cropping" else None
        found = crops(labelled(target), height, width, context_px, self.model.crop_grid_px)
        return [self._part(crop, (image, target), masks) for crop in found]

    def _part(self, crop: Crop, sample: Sample, masks: list[Tensor]) -> Part:
        image, target = sample
        counted = np.where(crop.cells, target[crop.box.cell_slices], unlabelled(target))
        rows, columns = crop.slices_at(self.model.mask_stride_px)
        return Part(image[crop.box.slices], counted, [mask[..., rows, columns] for mask in masks], crop.share)


def labelled(target: Target) -> Bool[np.ndarray, "*shape"]:
    """Tell which cells the loss counts."""
    return target != VOID if target.dtype == np.uint8 else ~np.isnan(target)


def unlabelled(target: Target) -> np.generic:
    """Return what a target of this kind holds where the loss counts nothing."""
    return np.uint8(VOID) if target.dtype == np.uint8 else np.float32(np.nan)


def in_batches(things: Iterable[Thing], size: int) -> Iterator[list[Thing]]:
    """Yield so many things at a time; the last batch may be smaller."""
    remaining = iter(things)
    while batch := list(islice(remaining, size)):
        yield batch
