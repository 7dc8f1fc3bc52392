"""From a network and one image to its map: information, predicted clicks, or a segmentation."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cereals_core.information import Measure, SampledMeasure, quantise
from cereals_core.models.base import Network
from cereals_core.models.dropout import draw_masks


class Predictor:
    """A trained network on its device; every method takes one image uint8 (H, W, 3) and returns a NumPy array.

    Images go through one at a time: float32 results depend on the batch in their last bits, and ledgers must not.
    """

    def __init__(self, model: Network, precision: torch.dtype = torch.float32) -> None:
        self.model = model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = next(model.parameters()).device
        self.autocast = torch.autocast(self.device.type, precision, enabled=precision != torch.float32)

    def _upload(self, image: np.ndarray) -> Tensor:
        return torch.from_numpy(image)[None].to(self.device, non_blocking=True).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def information(self, image: np.ndarray, measure: Measure) -> np.ndarray:
        """Information in each cell, from one pass without dropout: float16 (ceil(H/8), ceil(W/8))."""
        with self.autocast:
            logits = self.model(self._upload(image))
        return quantise(measure(logits)[0].cpu().numpy())

    @torch.inference_mode()
    def sampled_information(
        self, image: np.ndarray, measure: SampledMeasure, samples: int, dropout: float, rng: np.random.Generator
    ) -> np.ndarray:
        """Information in each cell, from `samples` dropout samples, 1 to 255: float16 (ceil(H/8), ceil(W/8)).

        The masks, 0 with probability `dropout`, are drawn from `rng` sample by sample.
        """
        return quantise(measure(self._sample(image, samples, dropout, rng))[0].cpu().numpy())

    def _sample(self, image: np.ndarray, samples: int, dropout: float, rng: np.random.Generator) -> Iterator[Tensor]:
        """Logits of one dropout sample after the other; the trunk, which no mask touches, is computed once."""
        shapes = self.model.mask_shapes(*image.shape[:2])
        with self.autocast:
            features = self.model.trunk(self._upload(image))
        for _ in range(samples):
            masks = draw_masks(rng, shapes, dropout, self.device)
            with self.autocast:
                logits = self.model.head(features, masks)
            yield logits

    @torch.inference_mode()
    def clicks(self, image: np.ndarray) -> np.ndarray:
        """Predicted clicks in each cell: float16 (ceil(H/8), ceil(W/8)); a regression: some are below 0."""
        with self.autocast:
            prediction = self.model(self._upload(image))
        return quantise(prediction[0, 0].float().cpu().numpy())

    @torch.inference_mode()
    def segmentation(self, image: np.ndarray) -> np.ndarray:
        """Class of each pixel: uint8 (H, W); logits are upsampled bilinearly from stride 8 (our choice)."""
        height, width = image.shape[:2]
        with self.autocast:
            logits = self.model(self._upload(image))
        full = functional.interpolate(logits.float(), scale_factor=8, mode="bilinear", align_corners=False)
        return full[0, :, :height, :width].argmax(0).to(torch.uint8).cpu().numpy()
