"""What a cost model must beat: a constant, and the edges that anyone sees in the image. Both are our choice."""

from dataclasses import dataclass

import cv2
import numpy as np

from cereals_core.grid import STRIDE_PX, Box, candidate_shape
from cereals_core.shapes import Float32, UInt8

PREDICTORS = ("learned", "constant", "edges")
"""The cost model, and the baselines: clicks in proportion to a region's pixels, and to its edges."""

SAMPLES = ("queried", "random")
"""Regions on which they are compared: those a round asked for, and those drawn from the evaluation split."""


def clicks_per(clicks: float, amount: float) -> float:
    """Divide clicks by `amount`, labelled pixels or edges, over all that is labelled; NaN if there is none.

    Times the pixels, or the edges, of a region the quotient is a baseline's prediction of the region's clicks.
    """
    return clicks / amount if amount > 0 else float("nan")


def edge_map(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Compute the magnitude of the grey-value gradient in each pixel, by Sobel's 3 x 3 filters: >= 0.

    `image` is RGB. Pixels outside are mirrored, so an image's border is no edge. It needs no label.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    y, x = (np.asarray(cv2.Sobel(grey, cv2.CV_32F, *order)) for order in ((0, 1), (1, 0)))
    return np.hypot(y, x)


def region_edges(edges: Float32[np.ndarray, "h w"], box: Box) -> float:
    """Sum `edge_map` over the pixels of a region: its density of edges times its area, in grey values."""
    return float(edges[box.slices].sum(dtype=np.float64))


def random_regions(height: int, width: int, window_px: int, count: int, rng: np.random.Generator) -> list[Box]:
    """Draw up to `count` different windows of an image of `height` x `width` pixels uniformly; they may overlap.

    They lie on the 8 px grid, wholly inside; none if the window does not fit.
    """
    rows, columns = candidate_shape(height, width, window_px)
    chosen = rng.choice(rows * columns, min(count, rows * columns), replace=False)
    cells = (divmod(int(place), columns) for place in chosen)
    return [Box(y * STRIDE_PX, x * STRIDE_PX, window_px, window_px) for y, x in cells]


@dataclass(frozen=True)
class Baselines:
    """Clicks for each pixel, and for each edge, of what is labelled; NaN where nothing is."""

    per_pixel: float
    per_edge: float

    def predict(self, box: Box, edges: float) -> dict[str, float]:
        """Predict the clicks of a region with so many edges, by each baseline's name."""
        return {"constant": self.per_pixel * box.pixels, "edges": self.per_edge * edges}
