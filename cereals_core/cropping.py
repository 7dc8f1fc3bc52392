"""Training by cropping: the parts of a partly labelled image that its labelled cells depend on, on integers alone.

CEREALS names two ways to train on labelled regions: mask the rest in output space, or crop the regions out with the
network's receptive field as context. How regions share a crop is our choice.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cereals_core.grid import STRIDE_PX, Box
from cereals_core.shapes import Bool


class Crop(NamedTuple):
    """A part of an image that is computed by itself."""

    box: Box
    cells: Bool[np.ndarray, "rows columns"]
    """The labelled cells that count in this crop, in the shape of `box.cell_slices`."""
    share: float
    """Their share of all labelled cells of the image, in (0, 1]."""

    def slices_at(self, stride_px: int) -> tuple[slice, slice]:
        """Return the crop's index in an array with one position for `stride_px` pixels, a divisor of the crop grid."""
        y, x, height, width = self.box
        rows, columns = -(-(y + height) // stride_px), -(-(x + width) // stride_px)
        return slice(y // stride_px, rows), slice(x // stride_px, columns)


def crops(
    labelled: Bool[np.ndarray, "rows columns"], height: int, width: int, context_px: int | None, grid_px: int
) -> list[Crop]:
    """Cut an image of `height` x `width` pixels into crops that hold each labelled cell with its context.

    `labelled`, (ceil(H / 8), ceil(W / 8)): the cells that the loss counts. Around each of its cells a crop holds
    `context_px` pixels, or all there are to the image's edge; it starts and ends on multiples of `grid_px` or at that
    edge. Crops may overlap, but each labelled cell counts in one of them only. They come in the order of their boxes.

    Each group of cells that touch, corners included, starts as one crop. Two crops become one wherever that adds no
    pixels. The whole image is the one crop, with share 1, if the crops together are not smaller, if `context_px` is
    None (everything depends on everything), or if nothing is labelled.
    """
    whole = Crop(Box(0, 0, height, width), labelled, 1.0)
    if context_px is None:
        return [whole]
    groups, _ = ndimage.label(labelled, np.ones((3, 3)))
    merged: dict[Box, list[int]] = {}
    for group, (rows, columns) in enumerate(ndimage.find_objects(groups), start=1):
        y, end_y = _widened(rows, height, context_px, grid_px)
        x, end_x = _widened(columns, width, context_px, grid_px)
        _add(merged, Box(y, x, end_y - y, end_x - x), [group])
    if not merged or sum(box.pixels for box in merged) >= whole.box.pixels:
        return [whole]
    counted = [(box, np.isin(groups[box.cell_slices], members)) for box, members in sorted(merged.items())]
    return [Crop(box, cells, float(cells.sum() / labelled.sum())) for box, cells in counted]


def _widened(cells: slice, size_px: int, context_px: int, grid_px: int) -> tuple[int, int]:
    """Return first and end pixel of cells with their context, outwards to the grid, cut at the image's edges."""
    start = (cells.start * STRIDE_PX - context_px) // grid_px * grid_px
    end = -(-(cells.stop * STRIDE_PX + context_px) // grid_px) * grid_px
    return max(start, 0), min(end, size_px)


def _add(merged: dict[Box, list[int]], box: Box, members: list[int]) -> None:
    """Add a crop after merging it with the one that saves most pixels, the earlier of equals, while one adds none."""
    while merged:
        best = max(merged, key=lambda other: _saved_px(box, other))
        if _saved_px(box, best) < 0:
            break
        members = members + merged.pop(best)
        box = _union(box, best)
    merged[box] = members


def _saved_px(first: Box, second: Box) -> int:
    return first.pixels + second.pixels - _union(first, second).pixels


def _union(first: Box, second: Box) -> Box:
    y, x = min(first.y, second.y), min(first.x, second.x)
    end_y = max(first.y + first.height, second.y + second.height)
    end_x = max(first.x + first.width, second.x + second.width)
    return Box(y, x, end_y - y, end_x - x)
