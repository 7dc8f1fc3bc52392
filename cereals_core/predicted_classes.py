"""What predicted classes add to scores: weights against frequent ones, the class of a region, the price of its border.

A map of classes holds the most probable class of each cell, NaN where there is none.
"""

from collections.abc import Sequence

import numpy as np

from cereals_core.information import quantise
from cereals_core.shapes import Float16, Float32, Float64, Integer

Classes = Float16[np.ndarray, "h w"]
Windows = Float32[np.ndarray, "rows columns"]


def class_shares(cells: Sequence[int]) -> Float64[np.ndarray, "classes"]:
    """Compute the share of each class from its number of cells; all 0 without a cell."""
    counts = np.asarray(cells, np.float64)
    return counts / max(counts.sum(), 1.0)


def class_weights(shares: Float64[np.ndarray, "classes"], strength: float) -> Float32[np.ndarray, "classes"]:
    """Compute (1 + c p)^-2 for the share p of each class and c = `strength`.

    Source: Hwang et al. (2023), there with c = 6 and 12 and by superpixel.
    """
    return ((1 + strength * shares) ** -2.0).astype(np.float32)


def weighted(
    information: Float16[np.ndarray, "h w"], classes: Classes, weights: Float32[np.ndarray, "classes"]
) -> Float16[np.ndarray, "h w"]:
    """Multiply each cell by the weight of its class, and round as maps are; NaN where there is no class."""
    known = ~np.isnan(classes)
    factor = np.full(classes.shape, np.nan, np.float32)
    factor[known] = weights[classes[known].astype(np.intp)]
    return quantise(information.astype(np.float32) * factor)


def classes_of_windows(classes: Classes, window_cells: int) -> Windows:
    """Return the class of every window, that of the cell (k // 2, k // 2) in it (our choice)."""
    rows, columns = (max(side - window_cells + 1, 0) for side in classes.shape)
    middle = window_cells // 2
    return classes[middle : middle + rows, middle : middle + columns].astype(np.float32)


def drawn_by_class(uniform: Windows, classes: Windows, shares: Float64[np.ndarray, "classes"]) -> Windows:
    """Turn uniform numbers in [0, 1) into scores by which each class is drawn as often: log(1 - u) p, at most 0.

    Taking the best ones draws windows one after the other, each with a chance in proportion to 1 / p of its class
    (Efraimidis and Spirakis 2006), so that every class has the same chance. Source: drawing the class first and then a
    place of it, as nnActive (2025) does; that the class is predicted is our choice.
    """
    known = ~np.isnan(classes)
    share = np.ones(classes.shape)
    share[known] = shares[classes[known].astype(np.intp)]
    return (np.log1p(-uniform.astype(np.float64)) * share).astype(np.float32)


def region_prices(classes: Classes, window_cells: int) -> Windows:
    """Estimate the clicks that a region costs beside its vertices: c_i + c_c of every window.

    c_i is the number of class changes along the window's border cells, all the way round. c_c, a click for each
    component, is taken as 1 + c_i / 2: every class boundary that runs through a window crosses its border twice and
    adds a component (our choice). Source: Cai et al. (2021) count c_p + c_i + c_c of the answer.
    """
    crossings = _changes(classes, window_cells) + _changes(classes.T, window_cells).T
    return (1 + 1.5 * crossings).astype(np.float32)


def _changes(classes: Classes, window_cells: int) -> Integer[np.ndarray, "rows columns"]:
    """Count the changes along the upper and the lower row of every window."""
    rows, columns = (max(side - window_cells + 1, 0) for side in classes.shape)
    changes = np.zeros(classes.shape, np.int64)
    np.cumsum(classes[:, 1:] != classes[:, :-1], axis=1, out=changes[:, 1:])
    along = changes[:, window_cells - 1 :] - changes[:, :columns]
    sides: Integer[np.ndarray, "rows columns"] = along[:rows] + along[window_cells - 1 :]
    return sides
