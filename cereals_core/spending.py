"""Predicted clicks as they are spent and shown: never next to nothing, and corrected by what predictions were worth.

The cost network's output is linear, as in the paper, so that sums over a region may be too low, or negative. What is
scored and ranked is what the network says; the floor and the correction are our choice.
"""

from dataclasses import dataclass

import numpy as np

from cereals_core.shapes import Float64, Real

FLOOR_SHARE = 0.1
"""Share of the clicks that its pixels have cost on average so far, below which no region is predicted."""
MOST_CORRECTED = 10.0
"""Largest factor of a correction, and its inverse the smallest."""


@dataclass(frozen=True)
class Spending:
    """What is known when a round asks: clicks for each pixel labelled so far, and of past queries both sums.

    `predicted` and `true`: clicks of the queries of past rounds whose cost was predicted; 0 if there are none.
    """

    clicks_per_px: float
    predicted: float = 0.0
    true: float = 0.0

    @property
    def correction(self) -> float:
        """True clicks for each that was predicted in past rounds, between 0.1 and 10; 1 before there are any."""
        if self.predicted <= 0:
            return 1.0
        return min(max(self.true / self.predicted, 1 / MOST_CORRECTED), MOST_CORRECTED)

    def floored(self, predicted: Real[np.ndarray, "regions"], pixels: float) -> Float64[np.ndarray, "regions"]:
        """Raise predictions for regions of so many pixels to the least that is believed, in clicks."""
        return np.maximum(predicted.astype(np.float64), FLOOR_SHARE * self.clicks_per_px * pixels)

    def spent(self, floored: Float64[np.ndarray, "regions"], least: float) -> Float64[np.ndarray, "regions"]:
        """Correct floored predictions, in clicks; what a region takes from a budget in clicks, `least` at least."""
        return np.maximum(floored * self.correction, least)
