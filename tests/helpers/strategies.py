"""Hypothesis strategies that several tests share."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cereals_core.grid import STRIDE_PX, VOID, Box

FEW = settings(max_examples=30)
"""For tests whose slow twin, or whose drawing, takes long."""

sides = st.integers(1, 12)
shapes = st.tuples(sides, sides)
windows = st.integers(1, 6)


def quantised_maps(shape: st.SearchStrategy[tuple[int, ...]] = shapes) -> st.SearchStrategy[np.ndarray]:
    """Maps as they are stored: float16, |value| < 2^10, with equal values being common."""
    values = st.sampled_from([0.0, 0.25, 1.0]) | st.floats(-1023, 1023, width=16)
    return hnp.arrays(np.float16, shape, elements=values)


def masks(shape: st.SearchStrategy[tuple[int, ...]] = shapes) -> st.SearchStrategy[np.ndarray]:
    """Maps of bool."""
    return hnp.arrays(np.bool_, shape)


def score_maps(shape: st.SearchStrategy[tuple[int, ...]] = shapes) -> st.SearchStrategy[np.ndarray]:
    """Fused scores: float32 in [0, 1] with many ties, -inf where a window is no candidate."""
    scores = st.one_of(st.sampled_from([-np.inf, 0.0, 0.25, 0.5, 1.0]), st.floats(0, 1, width=32))
    return hnp.arrays(np.float32, shape, elements=scores)


def label_maps(classes: int, shape: st.SearchStrategy[tuple[int, ...]] = shapes) -> st.SearchStrategy[np.ndarray]:
    """Labels uint8, void included."""
    return hnp.arrays(np.uint8, shape, elements=st.sampled_from([*range(classes), VOID]))


image_sizes = st.tuples(st.integers(17, 60), st.integers(17, 60))


@st.composite
def disjoint_boxes(draw: st.DrawFn, height: int, width: int) -> list[Box]:
    """Regions of one window size on the 8 px grid that do not overlap, in any order; or the whole image."""
    if draw(st.integers(0, 9)) == 0:
        return [Box(0, 0, height, width)]
    window = STRIDE_PX * draw(st.integers(1, 2))
    top, left = (STRIDE_PX * draw(st.integers(0, 1)) for _ in range(2))
    places = [
        Box(y, x, window, window)
        for y in range(top, height - window + 1, window)
        for x in range(left, width - window + 1, window)
    ]
    return draw(st.lists(st.sampled_from(places), unique=True)) if places else []


@st.composite
def images_with_boxes(draw: st.DrawFn) -> tuple[int, int, list[Box]]:
    """An image's height and width, and disjoint regions in it."""
    height, width = draw(image_sizes)
    return height, width, draw(disjoint_boxes(height, width))
