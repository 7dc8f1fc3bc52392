"""Predictions of one image at a time, as arrays."""

import numpy as np
from torch import Tensor

from cereals_core.information import Measure, SampledMeasure
from cereals_core.prediction import Predictor


class OneByOne:
    """A predictor for single images (H, W, 3), as batches of one."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor, self.model = predictor, predictor.model

    def information(self, image: np.ndarray, measure: Measure) -> np.ndarray:
        """As the predictor's."""
        return _first(self.predictor.information(image[None], measure))

    def sampled_information(
        self, image: np.ndarray, measure: SampledMeasure, samples: int, dropout: float, rng: np.random.Generator
    ) -> np.ndarray:
        """As the predictor's."""
        return _first(self.predictor.sampled_information(image[None], measure, samples, dropout, [rng]))

    def clicks(self, image: np.ndarray) -> np.ndarray:
        """As the predictor's."""
        return _first(self.predictor.clicks(image[None]))

    def segmentation(self, image: np.ndarray) -> np.ndarray:
        """As the predictor's."""
        return _first(self.predictor.segmentation(image[None]))


def _first(found: Tensor) -> np.ndarray:
    (only,) = found.cpu().numpy()
    return np.asarray(only)
