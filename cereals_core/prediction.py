"""From a network and images of one size to their maps: information, predicted clicks, or segmentations."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cereals_core.grid import STRIDE_PX
from cereals_core.information import Measure, SampledMeasure
from cereals_core.models.base import Masks, Network
from cereals_core.models.decoder import Features
from cereals_core.models.dropout import draw_masks
from cereals_core.shapes import Float, Float16, UInt8

Images = UInt8[np.ndarray, "b h w 3"] | tuple[Float16[np.ndarray, "b _ _ _"], ...]
"""RGB; or features, (b, rows, columns, channels) each, the finest first, for a decoder."""
Maps = Float16[Tensor, "b rows columns"]
Logits = Float[Tensor, "b classes rows columns"]


class Predictor:
    """A trained network on its device, which turns batches of RGB images into tensors there.

    `ahead` may make masks while the network is at work: it takes an iterator, and gives one of the same items.

    float32 results depend on the size of the batch in their last bits, on nothing else of it. Maps have ceil(H / 8)
    rows and ceil(W / 8) columns and are rounded as by `information.quantise`.
    """

    def __init__(
        self,
        model: Network,
        precision: torch.dtype = torch.float32,
        ahead: Callable[[Iterator[Masks]], Iterator[Masks]] = iter,
    ) -> None:
        self.ahead = ahead
        self.model = model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = next(model.parameters()).device
        self.autocast = torch.autocast(self.device.type, precision, enabled=precision != torch.float32)

    def _upload(self, images: Images) -> Any:
        if isinstance(images, tuple):
            return Features(*map(self._channels_first, images))
        return self._channels_first(images)

    def _channels_first(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def information(self, images: Images, measure: Measure) -> Maps:
        """Measure the information in each cell, from one pass without dropout."""
        with self.autocast:
            logits = self.model(self._upload(images))
        return measure(logits).half()

    @torch.inference_mode()
    def sampled_information(
        self, images: Images, measure: SampledMeasure, samples: int, dropout: float, rngs: Sequence[np.random.Generator]
    ) -> Maps:
        """Measure the information in each cell, from `samples` dropout samples, 1 to 255.

        The masks of an image, 0 with probability `dropout`, are drawn from its stream of `rngs`, sample by sample.
        """
        return measure(self._sample(images, samples, dropout, rngs)).half()

    def _sample(
        self, images: Images, samples: int, dropout: float, rngs: Sequence[np.random.Generator]
    ) -> Iterator[Logits]:
        """Yield the logits of each dropout sample in turn; the trunk, which no mask touches, is computed once."""
        shapes = self.model.mask_shapes(*_size_px(images))
        drawn = self.ahead(self._masks(shapes, dropout, rngs) for _ in range(samples))
        with self.autocast:
            features = self.model.trunk(self._upload(images))
        for masks in drawn:
            with self.autocast:
                logits = self.model.head(features, masks)
            yield logits

    def _masks(self, shapes: list[tuple[int, ...]], dropout: float, rngs: Sequence[np.random.Generator]) -> Masks:
        """Draw the masks of one sample of all images."""
        drawn = [draw_masks(rng, shapes, dropout, self.device) for rng in rngs]
        return [torch.cat(masks) for masks in zip(*drawn, strict=True)] if len(drawn) > 1 else drawn[0]

    @torch.inference_mode()
    def clicks(self, images: Images) -> Maps:
        """Predict the clicks in each cell; a regression: some are below 0."""
        with self.autocast:
            prediction = self.model(self._upload(images))
        return prediction[:, 0].float().half()

    @torch.inference_mode()
    def classes(self, images: Images) -> Maps:
        """Predict the most probable class of each cell, the smaller of equal ones."""
        with self.autocast:
            logits = self.model(self._upload(images))
        return logits.max(dim=1).indices.half()

    @torch.inference_mode()
    def segmentation(self, images: Images, size: tuple[int, int] | None = None) -> UInt8[Tensor, "b h w"]:
        """Predict the class of each pixel; logits are upsampled bilinearly from stride 8 (our choice).

        `size`: height and width of the images in pixels, which features do not tell.
        """
        height, width = size or _size_px(images)
        with self.autocast:
            logits = self.model(self._upload(images))
        full = functional.interpolate(logits.float(), scale_factor=STRIDE_PX, mode="bilinear", align_corners=False)
        return full[..., :height, :width].argmax(1).to(torch.uint8)


def _size_px(images: Images) -> tuple[int, int]:
    """Tell the size of images in pixels, of features rounded up to whole cells."""
    if isinstance(images, tuple):
        rows, columns = images[0].shape[1:3]
        return rows * STRIDE_PX, columns * STRIDE_PX
    height, width = images.shape[1:3]
    return height, width
