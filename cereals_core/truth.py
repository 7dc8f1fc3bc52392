"""Truth: what is to be known of an image, its labels and the clicks that they took."""

from dataclasses import dataclass

import numpy as np

from cereals_core.shapes import Float32, UInt8


@dataclass(frozen=True)
class Truth:
    """Everything that is to be known of one image: its labels, and the clicks that they took.

    `labels`: class indices, VOID where the truth is unknown.

    `clicks`: one row (y, x, weight) for each polygon vertex, in pixels of the image as read; the weight is the number
    of clicks the vertex stands for: 1 for an annotated vertex, 0.5 for one traced along an edge that two contours
    share.
    """

    labels: UInt8[np.ndarray, "h w"]
    clicks: Float32[np.ndarray, "clicks 3"]
