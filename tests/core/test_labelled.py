from collections.abc import Iterable

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import images_with_boxes

from cereals_core.errors import CerealsError
from cereals_core.grid import VOID, Box
from cereals_core.labelled import ClickTarget, LabelTarget, Target, is_fully_labelled, labelled_cells

NO_CLICKS = np.zeros((0, 3), np.float32)
Answer = tuple[Box, np.ndarray, np.ndarray]


def targets_of(answers: Iterable[Answer], height: int, width: int) -> tuple[Target, Target]:
    """Labels and clicks."""
    made = LabelTarget(height, width), ClickTarget(height, width)
    for answer in answers:
        for target in made:
            target.add(*answer)
    return made


def test_one_region_of_two_cells_by_two() -> None:
    cells = labelled_cells([Box(0, 8, 16, 16)], 24, 28)
    assert cells.astype(int).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]


def test_a_whole_image_covers_its_partial_cells() -> None:
    assert labelled_cells([Box(0, 0, 9, 17)], 9, 17).tolist() == [[True] * 3] * 2
    assert is_fully_labelled([Box(0, 0, 9, 17)], 9, 17)
    assert not is_fully_labelled([Box(0, 0, 8, 16)], 9, 17)
    assert not is_fully_labelled([], 9, 17)


@pytest.mark.parametrize(
    "box", [Box(4, 0, 8, 8), Box(0, 0, 12, 8), Box(0, 24, 8, 8), Box(-8, 0, 8, 8), Box(0, 0, 8, 0)]
)
def test_a_box_off_the_grid_or_outside_is_refused(box: Box) -> None:
    with pytest.raises(ValueError, match="in an image of 20 x 24 pixels: expected a box inside") as got:
        labelled_cells([box], 20, 24)
    assert isinstance(got.value, CerealsError)


@pytest.mark.parametrize("second", [Box(8, 8, 16, 16), Box(0, 0, 16, 16), Box(0, 0, 24, 24)])
def test_overlapping_boxes_are_refused(second: Box) -> None:
    first = Box(0, 0, 16, 16)
    with pytest.raises(ValueError, match="overlaps another labelled region"):
        labelled_cells([first, second], 24, 24)
    answers = [(box, np.zeros((box.height, box.width), np.uint8), NO_CLICKS) for box in (first, second)]
    with pytest.raises(ValueError, match="overlaps another labelled region"):
        targets_of(answers, 24, 24)


def test_targets_of_one_answer() -> None:
    answer = np.full((8, 16), 3, np.uint8)
    answer[4, 12] = VOID
    clicks = np.array([[0, 8, 1], [7.9, 15.9, 0.5], [3, 16, 1]], np.float32)
    labels, counted = targets_of([(Box(0, 8, 8, 16), answer, clicks)], 16, 24)
    assert labels.cells.tolist() == [[VOID, 3, VOID], [VOID, VOID, VOID]]
    np.testing.assert_array_equal(counted.cells, [[np.nan, 1.5, 1], [np.nan] * 3])
    assert labels.teaches
    assert counted.teaches


def test_no_answer_leaves_all_void() -> None:
    labels, clicks = targets_of([], 9, 9)
    assert (labels.cells == VOID).all()
    assert np.isnan(clicks.cells).all()
    assert not labels.teaches
    assert not clicks.teaches


def test_void_has_cost_clicks_and_teaches_no_class() -> None:
    labels, clicks = targets_of([(Box(0, 0, 8, 8), np.full((8, 8), VOID, np.uint8), NO_CLICKS)], 16, 16)
    assert (labels.teaches, clicks.teaches) == (False, True)
    np.testing.assert_array_equal(clicks.cells, [[0, np.nan], [np.nan, np.nan]])


def test_labels_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"answered with labels of shape \(8, 9\)"):
        targets_of([(Box(0, 0, 8, 8), np.zeros((8, 9), np.uint8), NO_CLICKS)], 16, 16)


@given(images_with_boxes())
def test_labelled_cells_equal_the_loop(image: tuple[int, int, list[Box]]) -> None:
    height, width, boxes = image
    pixels = {(box.y + i, box.x + j) for box in boxes for i in range(box.height) for j in range(box.width)}
    cells = labelled_cells(boxes, height, width)
    assert {(int(y), int(x)) for y, x in np.argwhere(cells)} == {(y // 8, x // 8) for y, x in pixels}
    assert is_fully_labelled(boxes, height, width) == (len(pixels) == height * width)


@given(images_with_boxes(), st.integers(0, 2**32 - 1))
def test_targets_equal_those_of_the_truth_cut_to_the_boxes(drawn: tuple[int, int, list[Box]], seed: int) -> None:
    height, width, boxes = drawn
    random = np.random.default_rng(seed)
    truth = random.choice(np.array([0, 1, 2, VOID], np.uint8), (height, width))
    vertices = (random.random((60, 3)) * (height, width, 1)).astype(np.float32)
    seen = np.full_like(truth, VOID)
    answers, asked = [], [NO_CLICKS]
    for box in boxes:
        seen[box.slices] = truth[box.slices]
        inside = np.all((vertices[:, :2] >= box[:2]) & (vertices[:, :2] < np.add(box[:2], box[2:])), axis=1)
        answers.append((box, truth[box.slices], vertices[inside]))
        asked.append(vertices[inside])
    labels, clicks = (target.cells for target in targets_of(answers, height, width))
    labelled = labelled_cells(boxes, height, width)
    np.testing.assert_array_equal(labels, naive.labels_at_stride(seen))
    counted = naive.click_map(np.concatenate(asked), height, width)
    np.testing.assert_allclose(clicks, np.where(labelled, counted, np.nan), atol=1e-5)
    assert (labels.dtype, clicks.dtype) == (np.uint8, np.float32)
