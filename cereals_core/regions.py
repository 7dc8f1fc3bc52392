"""From maps to regions: sums over every window or whole image, and which of them may be asked for.

A window is a square of `window_cells` x `window_cells` cells; position (y, x) is its upper left cell. The caller passes
maps cut to whole cells (height // 8, width // 8), so that every window lies wholly inside its image.
"""

import numpy as np


def window_sums(cells: np.ndarray, window_cells: int) -> np.ndarray:
    """Sum of every window: S(y, x) = sum of cells[y + i, x + j] over 0 <= i, j < k, for windows one cell apart.

    `cells` is (..., h, w), a map or a stack of maps of any real dtype; `window_cells` is k >= 1. Returns float64
    (..., h - k + 1, w - k + 1), or (..., 0, 0) if the window does not fit. Sums are differences of the map's cumulative
    sums: exact for quantised maps (see `information.quantise`), and otherwise within float64 rounding of the sum of the
    whole map. The time does not depend on k.
    """
    *stack, rows, columns = cells.shape
    if window_cells > min(rows, columns):
        return np.zeros((*stack, 0, 0))
    cumulative = np.zeros((*stack, rows + 1, columns + 1))
    inner = cumulative[..., 1:, 1:]
    np.cumsum(cells, axis=-2, dtype=np.float64, out=inner)
    np.cumsum(inner, axis=-1, out=inner)
    strips = cumulative[..., window_cells:, :] - cumulative[..., :-window_cells, :]
    return strips[..., window_cells:] - strips[..., :-window_cells]


def candidates(labelled: np.ndarray, window_cells: int) -> np.ndarray:
    """Where a window holds no labelled cell, so that it may be asked for.

    `labelled` is bool (..., h, w); returns bool (..., h - k + 1, w - k + 1), or (..., 0, 0) if the window does not fit.
    That regions never overlap what is labelled is our choice.
    """
    return window_sums(labelled, window_cells) == 0


def image_sums(cells: np.ndarray) -> np.ndarray:
    """Sum of each whole map: (..., h, w), of any real dtype, to float64 (..., 1, 1); exact for quantised maps."""
    return cells.sum(axis=(-2, -1), dtype=np.float64, keepdims=True)


def untouched_images(labelled: np.ndarray) -> np.ndarray:
    """Which images hold no labelled cell, so that they may be asked for whole: bool (..., h, w) to (..., 1, 1)."""
    return np.asarray(~labelled.any(axis=(-2, -1), keepdims=True))
