"""Clicks: where they fall, what map they make, and what a region costs.

A click belongs to one pixel: the floor of its (y, x), moved into the image where it lies on the far edge or outside.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from cereals_core.grid import STRIDE_PX, Box, map_shape
from cereals_core.shapes import Bool, Float32, Int64, UInt8
from cereals_core.truth import Truth

MOST_CLICKS_PER_PIXEL = 10
"""Most clicks that count in a pixel of the click map (Mackowiak et al. 2018)."""


@dataclass(frozen=True)
class RegionCost:
    """True cost of labelling one region, in clicks; `Answer` and the ledger carry it."""

    vertices: float
    """c_p: clicks inside, the sum of their weights."""
    crossings: int
    """c_i: class changes along the region's border."""
    components: int
    """c_c: one click for each connected component of a class."""


def click_map(clicks: Float32[np.ndarray, "clicks 3"], shape: tuple[int, int]) -> Float32[np.ndarray, "rows columns"]:
    """Sum clicks (y, x, weight) in an image of `shape` (H, W) over each cell; returns ceil(H / 8) x ceil(W / 8) cells.

    Weights are added up per pixel, each pixel is clipped to [0, 10], and pixels are summed over blocks of 8 x 8. The
    clipping is the paper's; summing, so that totals are kept, is our choice. Without clicks the map is zero.
    """
    y, x = _pixels(clicks, shape)
    occupied, position = np.unique(y * shape[1] + x, return_inverse=True)
    weights = np.clip(np.bincount(position, clicks[:, 2], len(occupied)), 0, MOST_CLICKS_PER_PIXEL)
    rows, columns = map_shape(*shape)
    cell = occupied // shape[1] // STRIDE_PX * columns + occupied % shape[1] // STRIDE_PX
    return np.bincount(cell, weights, rows * columns).reshape(rows, columns).astype(np.float32)


def clicks_inside(
    clicks: Float32[np.ndarray, "clicks 3"], box: Box, shape: tuple[int, int]
) -> Bool[np.ndarray, "clicks"]:
    """Tell which clicks (y, x, weight) have their pixel inside `box`, in an image of `shape` (H, W)."""
    y, x = _pixels(clicks, shape)
    return (y >= box.y) & (y < box.y + box.height) & (x >= box.x) & (x < box.x + box.width)


def region_cost(truth: Truth, box: Box) -> RegionCost:
    """Count the true cost (c_p, c_i, c_c) of the region `box`, which lies in the image.

    Vertices are not clipped per pixel. Void counts as a class. Components are 4-connected within the region. Source:
    Cai et al. 2021; Colling et al. 2021.
    """
    labels = truth.labels[box.slices]
    inside = clicks_inside(truth.clicks, box, truth.labels.shape)
    vertices = float(truth.clicks[inside, 2].sum(dtype=np.float64))
    return RegionCost(vertices, border_crossings(labels), count_components(labels))


def border_crossings(labels: UInt8[np.ndarray, "h w"]) -> int:
    """Count class changes between neighbours on a closed walk once round the outermost pixels of labels.

    A region one pixel high or wide has no way round: its line is walked once, from end to end, and not closed.
    """
    if 1 in labels.shape:
        line = labels.ravel()
        return int(np.count_nonzero(line[1:] != line[:-1]))
    ring = np.concatenate([labels[0, :-1], labels[:-1, -1], labels[-1, :0:-1], labels[:0:-1, 0]])
    return int(np.count_nonzero(ring != np.roll(ring, 1)))


def count_components(labels: UInt8[np.ndarray, "h w"]) -> int:
    """Count the 4-connected components of equal value in labels."""
    areas = ((labels == label).astype(np.uint8) for label in np.unique(labels))
    return sum(cv2.connectedComponents(area, connectivity=4)[0] - 1 for area in areas)


def _pixels(
    clicks: Float32[np.ndarray, "clicks 3"], shape: tuple[int, int]
) -> tuple[Int64[np.ndarray, "clicks"], Int64[np.ndarray, "clicks"]]:
    y, x = (np.clip(np.floor(clicks[:, axis]), 0, shape[axis] - 1).astype(np.intp) for axis in (0, 1))
    return y, x
