"""From maps to regions: sums over every window or whole image, and which of them may be asked for.

A window is a square of `window_cells` x `window_cells` cells; position (y, x) is its upper left cell. The caller passes
maps cut to whole cells (height // 8, width // 8), so that every window lies wholly inside its image. One map at a time:
it and its sums fit into a processor's cache, where a stack of maps does not, which costs half as much again.
"""

import math

import cv2
import numpy as np

from cereals_core.acquisition_settings import Acquisition
from cereals_core.grid import STRIDE_PX, Box, map_shape
from cereals_core.shapes import Bool, Float32, Shaped

Cells = Shaped[np.ndarray, "h w"]
Labelled = Bool[np.ndarray, "h w"]
Sums = Float32[np.ndarray, "rows columns"]
Candidates = Bool[np.ndarray, "rows columns"]


def window_sums(cells: Cells, window_cells: int) -> Sums:
    """Sum a map over every window, one cell apart: S(y, x) = sum of cells[y + i, x + j] over 0 <= i, j < k.

    `cells` is of any real dtype; `window_cells` is k >= 1. Returns (h - k + 1, w - k + 1), or (0, 0) if the window does
    not fit. Sums run along both axes in float64, adding a cell where the window comes to and taking one off where it
    leaves, so that the time does not depend on k. For quantised maps (see `information.quantise`) that is exact, and
    each sum is rounded once, to float32; equal windows have equal sums, wherever they are.
    """
    rows, columns = (side - window_cells + 1 for side in cells.shape)
    if min(rows, columns) < 1:
        return np.zeros((0, 0), np.float32)
    single = cells.astype(np.float32, copy=False)
    size, corner = (window_cells, window_cells), (0, 0)
    sums = cv2.boxFilter(single, cv2.CV_32F, size, anchor=corner, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return sums[:rows, :columns]


def candidates(labelled: Labelled, window_cells: int) -> Candidates:
    """Tell where a window holds no labelled cell, so that it may be asked for.

    Returns (h - k + 1, w - k + 1), or (0, 0) if the window does not fit. That regions never overlap what is labelled is
    our choice.
    """
    rows, columns = (side - window_cells + 1 for side in labelled.shape)
    if min(rows, columns) > 0 and not labelled.any():  # most images of a large pool
        return np.ones((rows, columns), bool)
    return window_sums(labelled, window_cells) == 0


class Windows:
    """Regions of one size, a cell apart, wholly inside their image of `height` x `width` pixels."""

    def __init__(self, window_px: int) -> None:
        self.window_px, self.window_cells = window_px, window_px // STRIDE_PX

    def sums(self, cells: Cells, height: int, width: int) -> Sums:
        """Sum a map over every window."""
        return window_sums(_whole_cells(cells, height, width), self.window_cells)

    def compared(self, sums: Sums, height: int, width: int) -> Sums:
        """Return what is compared over the pool: the sums."""
        return sums

    def candidates(self, labelled: Labelled, height: int, width: int) -> Candidates:
        """Tell which windows hold nothing labelled."""
        return candidates(_whole_cells(labelled, height, width), self.window_cells)

    def box(self, y: int, x: int, height: int, width: int) -> Box:
        """Return the region at (y, x), in pixels."""
        return Box(y, x, self.window_px, self.window_px)


class WholeImages:
    """Images as they are, each one region at (0, 0)."""

    window_cells = 1

    def sums(self, cells: Cells, height: int, width: int) -> Sums:
        """Sum a map to (1, 1)."""
        return np.asarray(cells.sum(dtype=np.float64, keepdims=True), np.float32)

    def compared(self, sums: Sums, height: int, width: int) -> Sums:
        """Return what is compared over the pool: means per cell, so that size makes no image better (our choice)."""
        return sums / math.prod(map_shape(height, width))

    def candidates(self, labelled: Labelled, height: int, width: int) -> Candidates:
        """Tell whether nothing of the image is labelled, as (1, 1)."""
        return np.asarray(~labelled.any(keepdims=True))

    def box(self, y: int, x: int, height: int, width: int) -> Box:
        """Return the whole image, in pixels."""
        return Box(0, 0, height, width)


def kind_of(wanted: Acquisition) -> Windows | WholeImages:
    """Return what the settings call a region."""
    return Windows(wanted.window_px) if wanted.unit == "region" else WholeImages()


def _whole_cells(cells: Cells, height: int, width: int) -> Shaped[np.ndarray, "rows columns"]:
    return cells[: height // STRIDE_PX, : width // STRIDE_PX]
