import naive
import naive_classes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cereals_core.information import quantise
from cereals_core.predicted_classes import (
    class_shares,
    class_weights,
    classes_of_windows,
    drawn_by_class,
    region_prices,
    weighted,
)
from cereals_core.seeding import rng

shapes = st.tuples(st.integers(1, 7), st.integers(1, 7))
maps_of_classes = hnp.arrays(np.float16, shapes, elements=st.sampled_from([0.0, 1.0, 2.0]))


def test_weights_of_the_source() -> None:
    shares = class_shares([50, 25, 25, 0])
    assert shares.tolist() == [0.5, 0.25, 0.25, 0]
    assert class_weights(shares, 12).tolist() == pytest.approx([1 / 49, 1 / 16, 1 / 16, 1])
    assert class_weights(shares, 0).tolist() == [1, 1, 1, 1]
    assert class_shares([0, 0]).tolist() == [0, 0]


@given(maps_of_classes, st.sampled_from([0.0, 6.0, 12.0]))
def test_weighted_information_equals_the_loop(classes: np.ndarray, strength: float) -> None:
    cells = [int((classes == each).sum()) for each in range(3)]
    information = quantise(rng(0, "information").random(classes.shape, np.float32))
    fast = weighted(information, classes, class_weights(class_shares(cells), strength))
    slow = naive_classes.weighted(information, classes, cells, strength)
    assert fast.dtype == np.float16
    np.testing.assert_allclose(fast, slow, rtol=2**-10)


def test_without_a_class_there_is_no_information() -> None:
    classes = np.array([[np.nan, 1]], np.float16)
    found = weighted(np.ones((1, 2), np.float16), classes, np.array([1, 0.25], np.float32))
    np.testing.assert_array_equal(found, [[np.nan, 0.25]])


@given(maps_of_classes, st.integers(1, 8))
def test_classes_and_prices_of_windows_equal_the_loops(classes: np.ndarray, window: int) -> None:
    found, prices = classes_of_windows(classes, window), region_prices(classes, window)
    expected = naive.positions(classes.shape, window)
    assert found.shape == prices.shape == tuple(max(side - window + 1, 0) for side in classes.shape)
    assert found.size == len(expected)
    for y, x in expected:
        region = classes[y : y + window, x : x + window].tolist()
        assert found[y, x] == region[window // 2][window // 2]
        assert prices[y, x] == 1 + 1.5 * naive.naive_crossings(region)


def test_a_region_of_one_class_costs_a_click_and_one_that_a_border_runs_through_four() -> None:
    classes = np.zeros((4, 8), np.float16)
    classes[:, 4:] = 1
    assert region_prices(classes, 4).tolist() == [[1, 4, 4, 4, 1]]


def test_every_class_is_drawn_as_often() -> None:
    """Of 90 windows of one class and 10 of another, the best one is of either class in half of the draws."""
    classes = np.repeat(np.array([0, 1], np.float32), [90, 10])[None]
    shares, stream = class_shares([90, 10]), rng(0, "drawn")
    best = [int(drawn_by_class(stream.random((1, 100), np.float32), classes, shares).argmax()) for _ in range(4000)]
    assert np.mean(np.array(best) >= 90) == pytest.approx(0.5, abs=0.03)


def test_of_one_class_every_window_is_as_likely() -> None:
    uniform = rng(0, "uniform").random((3, 4), np.float32)
    scores = drawn_by_class(uniform, np.zeros((3, 4), np.float32), np.array([1.0]))
    assert (scores <= 0).all()
    assert scores.ravel().argsort().tolist() == (-uniform.ravel()).argsort().tolist()
