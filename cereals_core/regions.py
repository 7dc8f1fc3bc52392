"""From maps to regions: sums over every window or whole image, and which of them may be asked for.

A window is a square of `window_cells` x `window_cells` cells; position (y, x) is its upper left cell. The caller passes
maps cut to whole cells (height // 8, width // 8), so that every window lies wholly inside its image. One map at a time:
it and its sums fit into a processor's cache, where a stack of maps does not, which costs half as much again.
"""

from functools import reduce

import numpy as np


def window_sums(cells: np.ndarray, window_cells: int) -> np.ndarray:
    """Sum of every window: S(y, x) = sum of cells[y + i, x + j] over 0 <= i, j < k, for windows one cell apart.

    `cells` is (h, w) of any real dtype; `window_cells` is k >= 1. Returns float64 (h - k + 1, w - k + 1), or (0, 0) if
    the window does not fit. Each axis is summed by doubling: a sum of 2 n cells is that of n cells and that of the n
    behind them. Exact for quantised maps (see `information.quantise`), and otherwise within float64 rounding. The time
    grows with the logarithm of k.
    """
    rows, columns = cells.shape
    if window_cells > min(rows, columns):
        return np.zeros((0, 0))
    strips = _sums_along(cells.astype(np.float64).ravel(), window_cells, columns)
    sums = np.empty((rows - window_cells + 1, columns))
    found = _sums_along(strips, window_cells, 1)
    sums.ravel()[: found.size] = found
    return sums[:, : columns - window_cells + 1]


def _sums_along(values: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Sums of `length` values that lie `stride` apart, for every first one: (n,) to (n - (length - 1) * stride,).

    The rows of a map come one after the other, so that vertical neighbours lie a row apart, and all that is added are
    long contiguous arrays. Horizontal sums across the end of a row mean nothing, and are not windows.
    """
    size, start = values.size - (length - 1) * stride, 0
    parts = []
    for power in range(length.bit_length()):
        reach = 1 << power
        if power:
            values = values[: -reach // 2 * stride] + values[reach // 2 * stride :]
        if length & reach:
            parts.append(values[start * stride : start * stride + size])
            start += reach
    return np.asarray(reduce(np.add, parts))


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
    """Sum of a whole map: (h, w), of any real dtype, to float64 (1, 1); exact for quantised maps."""
    return cells.sum(dtype=np.float64, keepdims=True)


def untouched_image(labelled: np.ndarray) -> np.ndarray:
    """Whether the image holds no labelled cell, so that it may be asked for whole: bool (h, w) to (1, 1)."""
    return np.asarray(~labelled.any(keepdims=True))
