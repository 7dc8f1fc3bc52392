"""What is labelled in one image: areas from the ledger's boxes, labels and clicks from the oracle's answers."""

from collections.abc import Iterable

import numpy as np

from cereals_core.clicks import click_map
from cereals_core.errors import DataError
from cereals_core.grid import STRIDE_PX, VOID, Box, labels_at_stride, map_shape


def labelled_cells(boxes: Iterable[Box], height: int, width: int) -> np.ndarray:
    """Cells that the boxes cover: bool (ceil(H / 8), ceil(W / 8)) for an image of `height` x `width` pixels.

    Raises DataError for a box that leaves the image, is off the 8 px grid (only the image's edge may cut a cell), or
    overlaps another: regions never do.
    """
    cells = np.zeros(map_shape(height, width), dtype=bool)
    for box in boxes:
        _cover(cells, box, height, width)
    return cells


def _cover(cells: np.ndarray, box: Box, height: int, width: int) -> None:
    """Mark the cells of a box, none of which may be marked before."""
    _check_on_grid(box, height, width)
    if cells[box.cell_slices].any():
        raise DataError(
            f"{box} overlaps another labelled region of its image; regions never overlap, so the ledger or the "
            "answers were changed or hold a region twice: restore them, or remove their folder to make them again"
        )
    cells[box.cell_slices] = True


def _check_on_grid(box: Box, height: int, width: int) -> None:
    spans = ((box.y, box.y + box.height, height), (box.x, box.x + box.width, width))
    for start, end, size in spans:
        if not 0 <= start < end <= size or start % STRIDE_PX or (end % STRIDE_PX and end != size):
            raise DataError(
                f"{box} in an image of {height} x {width} pixels: expected a box inside the image that starts on a "
                f"multiple of {STRIDE_PX} px and ends on one or at the image's edge; check that the data set is read "
                "at the scale the campaign was started with"
            )


def labelled_pixels(boxes: Iterable[Box]) -> int:
    """Area in pixels of boxes that do not overlap."""
    return sum(box.pixels for box in boxes)


def is_fully_labelled(boxes: Iterable[Box], height: int, width: int) -> bool:
    """Whether the boxes cover every pixel of an image of `height` x `width` pixels; errors as in `labelled_cells`."""
    return bool(labelled_cells(boxes, height, width).all())


class LabelledImage:
    """All that is labelled of one image of `height` x `width` pixels, at map resolution, added answer by answer.

    Each is (ceil(H / 8), ceil(W / 8)): `labels` uint8, of the pixel at each cell's centre, VOID where that is void or
    not labelled; `clicks` float32, in each cell, as `clicks.click_map` counts them; `labelled` bool, the cells that an
    answer covers, void or not.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        shape = map_shape(height, width)
        self.labels = np.full(shape, VOID, np.uint8)
        self.clicks, self.labelled = np.zeros(shape, np.float32), np.zeros(shape, bool)

    def add(self, box: Box, labels: np.ndarray, clicks: np.ndarray) -> None:
        """Add an answer: labels uint8 (box height, box width), clicks float32 (V, 3), rows (y, x, weight) in the image.

        Raises DataError as `labelled_cells`, and for labels that are not of their box's size. Regions share no cell, so
        that an answer can be brought to map resolution alone.
        """
        if labels.shape != (box.height, box.width):
            raise DataError(
                f"{box} was answered with labels of shape {labels.shape}; expected one label a pixel of the box; "
                "remove the answers' folder to ask again"
            )
        _cover(self.labelled, box, self.height, self.width)
        self.labels[box.cell_slices] = labels_at_stride(labels)
        inside = clicks - np.array([box.y, box.x, 0], np.float32)
        self.clicks[box.cell_slices] = click_map(inside, labels.shape)
