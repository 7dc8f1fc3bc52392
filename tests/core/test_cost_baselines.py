import math

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import FEW

from cereals_core.cost_baselines import clicks_per, edge_map, random_regions, region_edges
from cereals_core.evaluation import calibration, cost_agreement
from cereals_core.grid import Box
from cereals_core.seeding import rng


def as_colours(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, axis=2)


def test_edges_of_a_step_by_hand() -> None:
    grey = np.zeros((4, 6), np.uint8)
    grey[:, 3:] = 10
    edges = edge_map(as_colours(grey))
    # Sobel gives (1 + 2 + 1) * 10 on either side of the step; the image's border is mirrored and makes no edge.
    assert edges.dtype == np.float32
    assert edges.tolist() == [[0, 0, 40, 40, 0, 0]] * 4
    assert region_edges(edges, Box(1, 0, 2, 3)) == 2 * 40
    assert region_edges(edges, Box(0, 4, 4, 2)) == 0


@FEW
@given(hnp.arrays(np.uint8, st.tuples(st.integers(2, 9), st.integers(2, 9))))
def test_edges_are_those_of_the_naive_twin(grey: np.ndarray) -> None:
    np.testing.assert_allclose(edge_map(as_colours(grey)), naive.edge_map(grey), rtol=1e-6)


def test_clicks_in_proportion() -> None:
    assert clicks_per(30, 1200) * 400 == 10
    assert math.isnan(clicks_per(3, 0))


def test_random_regions_by_hand() -> None:
    stream = rng(1, "test")
    assert random_regions(39, 64, 40, 4, stream) == []
    assert random_regions(47, 41, 40, 4, stream) == [Box(0, 0, 40, 40)]
    # Of 3 x 2 positions in 24 x 16 px all six are drawn, each once.
    every = random_regions(24, 16, 8, 9, stream)
    assert sorted(every) == [Box(y, x, 8, 8) for y in (0, 8, 16) for x in (0, 8)]


@given(st.integers(8, 90), st.integers(8, 90), st.sampled_from([8, 16, 24]), st.integers(0, 5), st.integers(0, 9))
def test_random_regions_lie_on_the_grid_inside_and_differ(
    height: int, width: int, window_px: int, count: int, seed: int
) -> None:
    drawn = random_regions(height, width, window_px, count, rng(seed, "test"))
    assert drawn == random_regions(height, width, window_px, count, rng(seed, "test"))
    positions = max(height // 8 - window_px // 8 + 1, 0) * max(width // 8 - window_px // 8 + 1, 0)
    assert len(set(drawn)) == len(drawn) == min(count, positions)
    for box in drawn:
        assert box.y % 8 == box.x % 8 == 0
        assert 0 <= box.y <= height - window_px
        assert 0 <= box.x <= width - window_px
        assert box.height == box.width == window_px


def test_random_regions_are_drawn_uniformly() -> None:
    drawn = [random_regions(16, 24, 8, 1, rng(seed, "test"))[0] for seed in range(600)]
    counts = [drawn.count(box) for box in sorted(set(drawn))]
    assert len(counts) == 6
    assert all(60 < count < 140 for count in counts)


def test_bias_is_the_mean_of_what_was_predicted_too_much() -> None:
    assert cost_agreement(np.array([2.0, 4.0, math.nan]), np.array([1.0, 2.0, 9.0])).bias == 1.5
    assert math.isnan(cost_agreement(np.zeros(0), np.zeros(0)).bias)


def test_calibration_of_five_regions_in_two_bins() -> None:
    predicted, true = np.array([5.0, 1.0, 3.0, math.nan, 2.0, 9.0]), np.array([6.0, 0.0, 4.0, 99.0, 1.0, 8.0])
    # By prediction 1, 2, 3, 5, 9: the middle one, of rank 3 of 5, falls into the upper bin.
    assert calibration(predicted, true, 2) == pytest.approx(np.array([[1.5, 0.5], [17 / 3, 6]]))


def test_a_constant_prediction_makes_one_bin() -> None:
    assert calibration(np.full(20, 3.0), np.arange(20.0), 8).tolist() == [[3, 9.5]]
    assert calibration(np.full(3, math.nan), np.arange(3.0), 8).shape == (0, 2)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), min_size=1, max_size=40), st.integers(1, 9))
def test_calibration_is_that_of_the_naive_twin(pairs: list[tuple[int, int]], most_bins: int) -> None:
    predicted, true = ([float(pair[index]) for pair in pairs] for index in (0, 1))
    found = calibration(np.array(predicted), np.array(true), most_bins)
    assert len(found) <= most_bins
    assert (np.diff(found[:, 0]) > 0).all()
    np.testing.assert_allclose(found, naive.calibration(predicted, true, most_bins), rtol=1e-12)


@given(st.permutations(range(23)), st.integers(1, 30))
def test_bins_of_different_predictions_are_equally_large(predicted: list[int], most_bins: int) -> None:
    # If one region alone has a true click, the mean of its bin tells how many regions share the bin.
    means = [calibration(np.array(predicted), single, most_bins)[:, 1].max() for single in np.eye(len(predicted))]
    sizes = [round(1 / mean) for mean in means]
    assert max(sizes) - min(sizes) <= 1
    assert sum(1 / size for size in sizes) == pytest.approx(min(most_bins, len(predicted)))
