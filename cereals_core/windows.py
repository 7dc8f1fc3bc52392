"""What a step of training computes by windows of labelled cells, with the context that the network needs around them.

Windows tile every image; those that hold a labelled cell are drawn without replacement until all were. Every labelled
cell weighs alike: a step's loss is the sum over its cells, by the cells that a step has on average. So a step sees as
many places as it has windows, and little is computed that is far from any label (our choice).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from cereals_core.augmentation import scaled_crop
from cereals_core.batches import Batches, InOrder, Part, Sample, Target, labelled, unlabelled
from cereals_core.grid import FEATURE_STRIDES_PX, STRIDE_PX, Box
from cereals_core.models.decoder import CONTEXT_CELLS, Features
from cereals_core.shapes import Bool, Float16, Int64

Places = Int64[np.ndarray, "windows 3"]
"""Windows: index of the sample, and the window's first row and column in cells."""


@runtime_checkable
class Plane(Protocol):
    """Features of one image at one stride, (rows, columns, channels): an array, or what reads a part of one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""

    def __getitem__(self, index: tuple[slice, slice]) -> Any:
        """Read a part of them."""


@runtime_checkable
class FeatureSamples(Protocol):
    """Samples whose images are features, of which windows can be read."""

    def windows_in_order(self, batches: Iterable[Places], cells: int) -> Iterable[tuple[Features, Target]]:
        """Read windows of so many cells a side, a batch at a time: as of `features_around`, and their targets."""


class Windows(NamedTuple):
    """All windows of a training, and the labelled cells that one holds on average."""

    places: Places
    mean_cells: float


class WindowBatches(Batches):
    """Steps of `batch_windows` windows."""

    _windows: Windows | None = None

    def of_epoch(
        self, samples: Any, in_order: InOrder | None, rng: np.random.Generator
    ) -> Iterator[Sequence[Sequence[Part]]]:
        """Yield a step at a time: windows of features as one part, those of images as an image each."""
        cells, size = self.settings.window_px // STRIDE_PX, self.settings.batch_windows
        if self._windows is None:
            self._windows = windows_of(_targets(samples), cells)
        places = self._windows.places[rng.permutation(len(self._windows.places))]
        batches = [places[start : start + size] for start in range(0, len(places), size)]
        expected = self._windows.mean_cells * min(size, len(places))
        if isinstance(samples, FeatureSamples):
            return self._of_features(samples.windows_in_order(batches, cells), expected, rng)
        indices = places[:, 0].tolist()
        taken = iter(map(samples.__getitem__, indices) if in_order is None else in_order(indices))
        return self._of_images(taken, batches, cells, expected, rng)

    def _of_features(
        self, found: Iterable[tuple[Features, Target]], expected: float, rng: np.random.Generator
    ) -> Iterator[Sequence[Sequence[Part]]]:
        for features, target in found:
            if "flip" in self.settings.augment:
                features, target = _flipped(features, target, rng.random(len(target)) < 0.5)
            count, rows, columns = target.shape
            masks = self.masks(rng, rows * STRIDE_PX, columns * STRIDE_PX, count)
            yield [[Part(features, target, masks, float(labelled(target).sum() / expected))]]

    def _of_images(
        self, taken: Iterator[Sample], batches: Iterable[Places], cells: int, expected: float, rng: np.random.Generator
    ) -> Iterator[Sequence[Sequence[Part]]]:
        for batch in batches:
            cut = [self._cut(next(taken), int(row), int(column), cells, rng) for _, row, column in batch]
            counts = [int(labelled(target).sum()) for _, target in cut]
            yield [
                [Part(image, target, self.masks(rng, *image.shape[:2]), count * len(cut) / expected)]
                for (image, target), count in zip(cut, counts, strict=True)
            ]

    def _cut(self, sample: Sample, row: int, column: int, cells: int, rng: np.random.Generator) -> Sample:
        """Cut a window with its context out of an image; cells beyond the window do not count."""
        image, target = sample
        context_px = self.settings.context_px if self.settings.context_px is not None else self.model.context_px
        assert context_px is not None
        nothing = unlabelled(target)
        if "scale" in self.settings.augment:
            known = np.argwhere(labelled(target[row : row + cells, column : column + cells]))
            centre = known[rng.integers(len(known))] + (row + 0.5, column + 0.5)
            cut = scaled_crop(np.asarray(image), target, centre, cells, context_px // STRIDE_PX, rng, nothing)
            if labelled(cut[1]).any():  # a cell by itself may be missed
                return self.augmented(cut, rng)
        counted, window = np.full_like(target, nothing), np.s_[row : row + cells, column : column + cells]
        counted[window] = target[window]
        box = _with_context(row, column, cells, target.shape, context_px, self.model.crop_grid_px)
        return self.augmented((image[box.slices], counted[box.cell_slices]), rng)


def windows_of(targets: Iterable[Target], cells: int) -> Windows:
    """List the windows of `cells` a side with a labelled cell, sample by sample."""
    found, count = [np.empty((0, 3), np.int64)], 0
    for index, target in enumerate(targets):
        known = labelled(target)
        padded = np.pad(known, [(0, -side % cells) for side in known.shape])
        rows, columns = (side // cells for side in padded.shape)
        held = np.argwhere(padded.reshape(rows, cells, columns, cells).any((1, 3))) * cells
        found.append(np.column_stack([np.full(len(held), index), held]))
        count += int(known.sum())
    places = np.concatenate(found)
    return Windows(places, count / max(len(places), 1))


def features_around(planes: Sequence[Plane], row: int, column: int, cells: int) -> list[Float16[np.ndarray, "_ _ _"]]:
    """Cut the features that a window's outputs depend on; beyond the image they repeat those at its edge.

    `planes`: of one image, the finest first. `row`, `column`, `cells`: the window at stride 8, multiples of 4. There is
    one cell of context on each side at every stride: (cells / n + 2, cells / n + 2, channels) for n = 1, 2, 4.
    """
    cut = []
    for plane, stride_px in zip(planes, FEATURE_STRIDES_PX, strict=True):
        factor = stride_px // STRIDE_PX
        rows, columns = (
            np.clip(np.arange(start // factor - CONTEXT_CELLS, (start + cells) // factor + CONTEXT_CELLS), 0, side - 1)
            for start, side in zip((row, column), plane.shape, strict=False)
        )
        found = np.asarray(plane[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        is_whole = found.shape[:2] == (len(rows), len(columns))
        cut.append(found if is_whole else found[(rows - rows[0])[:, None], columns - columns[0]])
    return cut


def window_of(target: Target, row: int, column: int, cells: int) -> Target:
    """Cut a window out of a target; beyond the image nothing is labelled."""
    found = target[row : row + cells, column : column + cells]
    missing = [(0, cells - side) for side in found.shape]
    return np.pad(found, missing, constant_values=unlabelled(target)) if any(map(sum, missing)) else found


def inside_of(shape: tuple[int, ...], row: int, column: int, cells: int) -> Bool[np.ndarray, "rows columns"]:
    """Tell which cells of a window with its context lie in an image of so many cells."""
    rows, columns = (
        (span >= 0) & (span < side)
        for start, side in zip((row, column), shape, strict=True)
        for span in [np.arange(start - CONTEXT_CELLS, start + cells + CONTEXT_CELLS)]
    )
    return rows[:, None] & columns


def _targets(samples: Any) -> Iterator[Target]:
    """Yield the targets alone, without reading an image where the samples can tell them apart."""
    told = getattr(samples, "targets", None)
    return iter(told.values()) if told is not None else (target for _, target in samples)


def _flipped(features: Features, target: Target, which: np.ndarray) -> tuple[Features, Target]:
    """Mirror some windows left to right."""
    fine, middle, coarse, inside = (
        np.where(which.reshape(-1, *[1] * (each.ndim - 1)), each[:, :, ::-1], each) for each in features
    )
    return Features(fine, middle, coarse, inside), np.where(which[:, None, None], target[:, :, ::-1], target)


def _with_context(row: int, column: int, cells: int, shape: tuple[int, ...], context_px: int, grid_px: int) -> Box:
    """Widen a window by its context, outwards to the grid, cut at the edges of an image of so many cells."""
    spans = []
    for start, side in zip((row, column), shape, strict=True):
        first = (start * STRIDE_PX - context_px) // grid_px * grid_px
        end = -(-((start + cells) * STRIDE_PX + context_px) // grid_px) * grid_px
        spans.append((max(first, 0), min(end, side * STRIDE_PX)))
    (y, end_y), (x, end_x) = spans
    return Box(y, x, end_y - y, end_x - x)
