"""From maps to regions: sums over every window or whole image, and which of them may be asked for.

A window is a square of `window_cells` x `window_cells` cells; position (y, x) is its upper left cell. The caller passes
maps cut to whole cells (height // 8, width // 8), so that every window lies wholly inside its image. One map at a time:
it and its sums fit into a processor's cache, where a stack of maps does not, which costs half as much again.
"""

import cv2
import numpy as np


def window_sums(cells: np.ndarray, window_cells: int) -> np.ndarray:
    """Sum of every window: S(y, x) = sum of cells[y + i, x + j] over 0 <= i, j < k, for windows one cell apart.

    `cells` is (h, w) of any real dtype; `window_cells` is k >= 1. Returns float32 (h - k + 1, w - k + 1), or (0, 0) if
    the window does not fit. Sums run along both axes in float64, adding a cell where the window comes to and taking one
    off where it leaves, so that the time does not depend on k. For quantised maps (see `information.quantise`) that is
    exact, and each sum is rounded once, to float32; equal windows have equal sums, wherever they are.
    """
    rows, columns = (side - window_cells + 1 for side in cells.shape)
    if min(rows, columns) < 1:
        return np.zeros((0, 0), np.float32)
    single = cells.astype(np.float32, copy=False)
    size, corner = (window_cells, window_cells), (0, 0)
    sums = cv2.boxFilter(single, cv2.CV_32F, size, anchor=corner, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return sums[:rows, :columns]


def candidates(labelled: np.ndarray, window_cells: int) -> np.ndarray:
    """Where a window holds no labelled cell, so that it may be asked for.

    `labelled` is bool (h, w); returns bool (h - k + 1, w - k + 1), or (0, 0) if the window does not fit. That regions
    never overlap what is labelled is our choice.
    """
    rows, columns = (side - window_cells + 1 for side in labelled.shape)
    if min(rows, columns) > 0 and not labelled.any():  # most images of a large pool
        return np.ones((rows, columns), bool)
    return window_sums(labelled, window_cells) == 0


def image_sum(cells: np.ndarray) -> np.ndarray:
    """Sum of a whole map: (h, w), of any real dtype, to float32 (1, 1); for quantised maps rounded once."""
    return np.asarray(cells.sum(dtype=np.float64, keepdims=True), np.float32)


def untouched_image(labelled: np.ndarray) -> np.ndarray:
    """Whether the image holds no labelled cell, so that it may be asked for whole: bool (h, w) to (1, 1)."""
    return np.asarray(~labelled.any(keepdims=True))
