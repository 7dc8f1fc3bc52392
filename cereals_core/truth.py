"""Truth: what is to be known of an image, its labels and the clicks that they took."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Truth:
    """The answer to one image.

    `labels`: uint8 (H, W), class indices, VOID where the truth is unknown.
    `clicks`: float32 (V, 3), one row (y, x, weight) for each polygon vertex, in pixels of the image as read; the weight
    is the number of clicks the vertex stands for: 1 for an annotated vertex, 0.5 for one traced along an edge that two
    contours share.
    """

    labels: np.ndarray
    clicks: np.ndarray
