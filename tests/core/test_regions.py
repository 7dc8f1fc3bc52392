import naive
import numpy as np
from hypothesis import given
from strategies import FEW, masks, quantised_maps, windows

from cereals_core.regions import WholeImages, candidates, window_sums


def test_sums_of_two_by_two_windows() -> None:
    cells = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], dtype=np.float32)
    assert window_sums(cells, 2).tolist() == [[12, 16], [24, 28]]
    assert window_sums(cells, 1).tolist() == cells.tolist()
    assert window_sums(cells, 3).tolist() == [[45]]


def test_a_window_that_does_not_fit_has_no_position() -> None:
    assert window_sums(np.zeros((3, 9), np.float32), 4).shape == (0, 0)
    assert candidates(np.zeros((3, 9), bool), 4).shape == (0, 0)


def test_one_labelled_cell_rules_out_the_windows_that_hold_it() -> None:
    labelled = np.zeros((3, 4), dtype=bool)
    labelled[0, 1] = True
    assert candidates(labelled, 2).tolist() == [[False, False, True], [True, True, True]]


@given(quantised_maps(), windows)
def test_window_sums_equal_the_loop_bit_for_bit(cells: np.ndarray, window: int) -> None:
    slow = naive.window_sums(cells, window)
    fast = window_sums(cells, window)
    assert fast.dtype == np.float32
    assert fast.size == len(slow)
    assert all(fast[at] == np.float32(total) for at, total in slow.items())


@FEW
@given(quantised_maps(), quantised_maps(), windows)
def test_a_windows_sum_does_not_depend_on_what_lies_around(inside: np.ndarray, around: np.ndarray, window: int) -> None:
    height, width = inside.shape
    wider = np.resize(around, (height + 4, width + 6))
    wider[1 : height + 1, 2 : width + 2] = inside
    alone = window_sums(inside, window)
    rows, columns = alone.shape
    if alone.size:
        np.testing.assert_array_equal(window_sums(wider, window)[1 : rows + 1, 2 : columns + 2], alone)


@given(masks(), windows)
def test_candidates_equal_the_loop(labelled: np.ndarray, window: int) -> None:
    slow = naive.candidates(labelled, window)
    fast = candidates(labelled, window)
    assert fast.size == len(slow)
    assert all(fast[at] == free for at, free in slow.items())


@given(quantised_maps())
def test_the_sum_of_an_image_is_that_of_its_cells(cells: np.ndarray) -> None:
    assert WholeImages().sums(cells, 8, 8).tolist() == [[np.float32(sum(float(cell) for cell in cells.ravel()))]]


@given(masks())
def test_an_image_is_untouched_where_no_cell_is_labelled(labelled: np.ndarray) -> None:
    assert WholeImages().candidates(labelled, 8, 8).tolist() == [[True not in labelled.ravel().tolist()]]
