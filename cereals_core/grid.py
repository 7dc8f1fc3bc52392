"""Image pixels and map cells: the arithmetic of stride 8, on integers and slices alone.

A map of an image of H x W pixels has ceil(H / 8) x ceil(W / 8) cells; the last row and column may stand for less than a
whole 8 x 8 block. Coordinates are (y, x), boxes (y, x, height, width).
"""

from typing import NamedTuple

import numpy as np

from cereals_core.shapes import UInt8

STRIDE_PX = 8
FEATURE_STRIDES_PX = (STRIDE_PX, 16, 32)
"""Strides of the features that encoders give, each half as fine as the one before."""
VOID = 255
"""Label of a pixel that belongs to no class: ignored by training and evaluation."""


class Box(NamedTuple):
    """A rectangle of pixels in one image."""

    y: int
    x: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in an (H, W) array of pixels."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)

    @property
    def pixels(self) -> int:
        """Area in pixels."""
        return self.height * self.width

    def intersection_pixels(self, other: "Box") -> int:
        """Return the area in pixels that both cover; 0 where they only touch."""
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        return max(height, 0) * max(width, 0)

    @property
    def cell_slices(self) -> tuple[slice, slice]:
        """Index in a map of the cells the box covers; it starts on the grid and ends on it or at the image's edge."""
        return (
            slice(self.y // STRIDE_PX, -(-(self.y + self.height) // STRIDE_PX)),
            slice(self.x // STRIDE_PX, -(-(self.x + self.width) // STRIDE_PX)),
        )


def map_shape(height: int, width: int) -> tuple[int, int]:
    """Return the cells (rows, columns) of the map of an image of `height` x `width` pixels."""
    return -(-height // STRIDE_PX), -(-width // STRIDE_PX)


def candidate_shape(height: int, width: int, window_px: int) -> tuple[int, int]:
    """Return positions (rows, columns) of a window wholly in an image, one cell apart; (0, 0) if it does not fit."""
    rows = height // STRIDE_PX - window_px // STRIDE_PX + 1
    columns = width // STRIDE_PX - window_px // STRIDE_PX + 1
    return (rows, columns) if rows > 0 and columns > 0 else (0, 0)


def labels_at_stride(labels: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "rows columns"]:
    """Reduce labels to map resolution: the pixel at each cell's centre, (4, 4) of its block.

    A partial cell at the border has its centre moved into the image.
    """
    height, width = labels.shape
    rows, columns = map_shape(height, width)
    y = np.minimum(np.arange(rows) * STRIDE_PX + STRIDE_PX // 2, height - 1)
    x = np.minimum(np.arange(columns) * STRIDE_PX + STRIDE_PX // 2, width - 1)
    return labels[y[:, None], x[None, :]]
