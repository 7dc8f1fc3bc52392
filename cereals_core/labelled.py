"""What is labelled in one image: areas from the ledger's boxes, training targets from the oracle's answers."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from cereals_core.clicks import click_map
from cereals_core.errors import DataError
from cereals_core.grid import STRIDE_PX, VOID, Box, labels_at_stride, map_shape
from cereals_core.shapes import Bool, Float32, Shaped, UInt8

Labels = UInt8[np.ndarray, "h w"]
"""Labels of a box's pixels."""
Clicks = Float32[np.ndarray, "clicks 3"]
"""Clicks (y, x, weight) in pixels of the image."""
Cells = Shaped[np.ndarray, "rows columns"]


def labelled_cells(boxes: Iterable[Box], height: int, width: int) -> Bool[np.ndarray, "rows columns"]:
    """Mark cells that the boxes cover: bool (ceil(H / 8), ceil(W / 8)) for an image of `height` x `width` pixels.

    Raises DataError for a box that leaves the image, is off the 8 px grid (only the image's edge may cut a cell), or
    overlaps another: regions never do.
    """
    cells = np.zeros(map_shape(height, width), dtype=bool)
    for box in boxes:
        _check_on_grid(box, height, width)
        if cells[box.cell_slices].any():
            raise _overlap(box)
        cells[box.cell_slices] = True
    return cells


def _overlap(box: Box) -> DataError:
    return DataError(
        f"{box} overlaps another labelled region of its image; regions never overlap, so the ledger or the "
        "answers were changed or hold a region twice: restore them, or remove their folder to make them again"
    )


def _check_on_grid(box: Box, height: int, width: int) -> None:
    spans = ((box.y, box.y + box.height, height), (box.x, box.x + box.width, width))
    for start, end, size in spans:
        if not 0 <= start < end <= size or start % STRIDE_PX or (end % STRIDE_PX and end != size):
            raise DataError(
                f"{box} in an image of {height} x {width} pixels: expected a box inside the image that starts on a "
                f"multiple of {STRIDE_PX} px and ends on one or at the image's edge; check that the data set is read "
                "at the scale the campaign was started with"
            )


def is_fully_labelled(boxes: Iterable[Box], height: int, width: int) -> bool:
    """Tell whether the boxes cover every pixel of an image (`height` x `width`); errors as in `labelled_cells`."""
    return bool(labelled_cells(boxes, height, width).all())


class Target(ABC):
    """What a network is to learn of one image of `height` x `width` pixels, added answer by answer.

    `cells` is (ceil(H / 8), ceil(W / 8)). Regions share no cell, so each answer is brought to map resolution alone.
    """

    cells: Cells
    unlabelled: ClassVar[np.generic]
    """What a cell is before an answer covers it."""

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self.boxes: list[Box] = []
        self.cells = np.full(map_shape(height, width), self.unlabelled)

    def add(self, box: Box, labels: Labels, clicks: Clicks) -> None:
        """Add an answer: labels of the box's pixels, and clicks (y, x, weight) in pixels of the image.

        Raises DataError as `labelled_cells`, and for labels that are not of their box's size.
        """
        if labels.shape != (box.height, box.width):
            raise DataError(
                f"{box} was answered with labels of shape {labels.shape}; expected one label a pixel of the box; "
                "remove the answers' folder to ask again"
            )
        _check_on_grid(box, self.height, self.width)
        if any(box.intersection_pixels(other) for other in self.boxes):
            raise _overlap(box)
        self.boxes.append(box)
        self.cells[box.cell_slices] = self._reduced(box, labels, clicks)

    @abstractmethod
    def _reduced(self, box: Box, labels: Labels, clicks: Clicks) -> Cells:
        """Bring an answer to map resolution."""

    @property
    def teaches(self) -> bool:
        """Whether a loss would count any of the cells."""
        return bool(self.boxes)


class LabelTarget(Target):
    """Labels: uint8, of the pixel at each cell's centre, VOID where that is void or not labelled."""

    unlabelled = np.uint8(VOID)

    def _reduced(self, box: Box, labels: Labels, clicks: Clicks) -> Cells:
        return labels_at_stride(labels)

    @property
    def teaches(self) -> bool:
        """Whether any cell has a class."""
        return bool((self.cells != VOID).any())


class ClickTarget(Target):
    """Clicks: float32, in each cell as `clicks.click_map` counts them, NaN where no answer covers it."""

    unlabelled = np.float32(np.nan)

    def _reduced(self, box: Box, labels: Labels, clicks: Clicks) -> Cells:
        return click_map(clicks - np.array([box.y, box.x, 0], np.float32), labels.shape)
