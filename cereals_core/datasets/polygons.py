"""Polygons as annotators draw them: painted one over the other for labels, their vertices taken as clicks.

Coordinates are (y, x) in pixels, where pixel (i, j) covers [i, i + 1) x [j, j + 1).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cereals_core.shapes import Float32, Integer, Real
from cereals_core.truth import Truth

Ring = Real[np.ndarray, "vertices 2"]


class Polygon(NamedTuple):
    """One annotated outline: `label`, a class index or VOID, and `ring`, its vertices, none repeated."""

    label: int
    ring: Ring


def polygon_truth(polygons: Sequence[Polygon], shape: tuple[int, int], background: int) -> Truth:
    """Paint polygons in order, later ones covering earlier ones, and take every vertex as a click of weight 1.

    `shape` is the image's (height, width); pixels that no polygon covers get the label `background`.
    """
    labels = np.full(shape, background, np.uint8)
    for polygon in polygons:
        fill(labels, polygon.ring[None], polygon.label)
    return Truth(labels, vertex_clicks([polygon.ring for polygon in polygons]))


def vertex_clicks(rings: Sequence[Real[np.ndarray, "_ 2"]]) -> Float32[np.ndarray, "clicks 3"]:
    """Return a row (y, x, 1) for each vertex of the rings, in their order."""
    vertices = np.concatenate([np.empty((0, 2)), *rings])
    return np.column_stack([vertices, np.ones(len(vertices))]).astype(np.float32)


def fill(canvas: Integer[np.ndarray, "h w"], rings: Real[np.ndarray, "n vertices 2"], value: int) -> None:
    """Set to `value` the pixels of `canvas` whose centre lies inside rings, by the even-odd rule.

    Exact: a pixel centre on a left or upper edge is inside, on a right or lower edge outside, so polygons that share an
    edge neither overlap nor leave a gap. Whatever lies outside the canvas is cut off. `canvas` must be contiguous.
    """
    height, width = canvas.shape
    start = rings.reshape(-1, 2) - 0.5
    end = np.concatenate([rings[:, 1:], rings[:, :1]], axis=1).reshape(-1, 2) - 0.5
    goes_down = (start[:, 0] <= end[:, 0])[:, None]  # neighbours run along their edge in opposite directions
    top, bottom = np.where(goes_down, start, end), np.where(goes_down, end, start)
    first, stop = (np.ceil(point[:, 0]).clip(0, height).astype(np.intp) for point in (top, bottom))
    count = stop - first
    edge = np.repeat(np.arange(len(count)), count)
    row = np.arange(len(edge)) + (stop - count.cumsum())[edge]
    (y, x), (dy, dx) = top[edge].T, (bottom - top)[edge].T
    column = np.ceil(x + (row - y) * (dx / dy)).clip(0, width).astype(np.intp)
    crossings = np.sort(row * width + column).tolist()
    pixels = canvas.reshape(-1)
    for left, right in zip(crossings[::2], crossings[1::2], strict=True):
        pixels[left:right] = value
