import math
from fractions import Fraction

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import FEW, quantised_maps

from cereals_core.information import entropy, quantise, vote_counts, vote_entropy

LOGIT_SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))


def pixel(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).reshape(1, -1, 1, 1)


def test_entropy_of_one_in_two_and_one_in_four() -> None:
    assert entropy(pixel(0, 0)).item() == pytest.approx(math.log(2))
    halves = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert entropy(pixel(math.log(2), 0, 0)).item() == pytest.approx(halves, abs=1e-6)


def test_entropy_of_certainty_is_zero_and_ruled_out_classes_do_not_count() -> None:
    assert entropy(pixel(0, -1000)).item() == 0
    assert entropy(pixel(3e38, -3e38)).item() == 0
    assert entropy(pixel(0, 0, -math.inf)).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_entropy_of_half_precision_is_that_of_its_values(dtype: torch.dtype) -> None:
    logits = pixel(12, 0.5, -3, 0, dtype=dtype)
    assert entropy(logits).dtype == torch.float32
    assert entropy(logits).item() == pytest.approx(naive.entropy(logits.float().numpy()).item(), abs=1e-6)


@FEW
@given(hnp.arrays(np.float32, LOGIT_SHAPES, elements=st.floats(-(2.0**100), 2.0**100, width=32)))
def test_entropy_of_any_scale_matches_the_loop(logits: np.ndarray) -> None:
    fast = entropy(torch.from_numpy(logits)).numpy()
    assert fast.shape == (logits.shape[0], *logits.shape[2:])
    np.testing.assert_allclose(fast, naive.entropy(logits), atol=2e-6)


@FEW
@given(hnp.arrays(np.float32, LOGIT_SHAPES, elements=st.floats(-30, 30, width=32)), st.permutations(range(5)))
def test_entropy_does_not_depend_on_the_order_of_classes(logits: np.ndarray, order: list[int]) -> None:
    shuffled = [label for label in order if label < logits.shape[1]]
    first, second = (entropy(torch.from_numpy(array)) for array in (logits, logits[:, shuffled]))
    torch.testing.assert_close(first, second, atol=2e-6, rtol=0)


def test_votes_go_to_the_largest_logit_and_ties_to_the_smaller_class() -> None:
    counts = torch.zeros((1, 3, 1, 1), dtype=torch.uint8)
    for logits in (pixel(0, 2, 1), pixel(0, 7, 7), pixel(5, 5, 5)):
        vote_counts(logits, counts)
    assert counts.flatten().tolist() == [1, 2, 0]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_of_a_large_map_go_to_the_smaller_class(layout: torch.memory_format, dtype: torch.dtype) -> None:
    values = np.random.default_rng(0).integers(0, 4, (2, 19, 33, 70))
    counts = torch.zeros(values.shape, dtype=torch.uint8)
    vote_counts(torch.from_numpy(values).to(dtype).contiguous(memory_format=layout), counts)
    np.testing.assert_array_equal(counts.numpy().argmax(axis=1), values.argmax(axis=1))
    assert (counts.sum(dim=1) == 1).all()


def test_vote_entropy_of_three_to_one() -> None:
    counts = torch.tensor([3, 1, 0], dtype=torch.uint8).reshape(1, 3, 1, 1)
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert vote_entropy(counts, 4).item() == pytest.approx(expected, abs=1e-7)


def test_vote_entropy_of_agreement_is_zero_up_to_255_samples() -> None:
    counts = torch.tensor([255, 0], dtype=torch.uint8).reshape(1, 2, 1, 1)
    assert vote_entropy(counts, 255).item() == 0


@FEW
@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.just(2), st.integers(1, 5), st.integers(1, 3), st.just(3)),
        elements=st.integers(-2, 2).map(float),
    )
)
def test_votes_and_their_entropy_match_the_loop(samples: np.ndarray) -> None:
    counts = torch.zeros(samples.shape[1:], dtype=torch.uint8)
    for logits in samples:
        vote_counts(torch.from_numpy(logits), counts)
    np.testing.assert_array_equal(counts.numpy(), naive.votes(samples))
    fast = vote_entropy(counts, len(samples)).numpy()
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, naive.vote_entropy(counts.numpy(), len(samples)), atol=1e-6)


def test_quantise_rounds_to_the_nearest_step_and_ties_to_even() -> None:
    step = 2.0**-20
    values = np.array([0, 0.4, 0.5, 0.6, 1.5, -0.6, 3], dtype=np.float32) * np.float32(step)
    assert (quantise(values) / step).tolist() == [0, 0, 0, 1, 2, -1, 3]


@given(hnp.arrays(np.float32, 8, elements=st.floats(-(2.0**10), 2.0**10, width=32)))
def test_quantised_values_are_steps_within_half_a_step(values: np.ndarray) -> None:
    rounded = quantise(values)
    assert rounded.dtype == np.float32
    assert all(value.is_integer() for value in (rounded.astype(np.float64) * 2**20).tolist())
    assert np.abs(rounded.astype(np.float64) - values).max() <= 2**-21
    np.testing.assert_array_equal(quantise(rounded), rounded)


@given(quantised_maps())
def test_float64_sums_of_quantised_maps_are_exact_in_any_order(cells: np.ndarray) -> None:
    exact = Fraction(sum(int(value * 2**20) for value in cells.ravel().tolist()), 2**20)
    assert Fraction(float(cells.sum(dtype=np.float64))) == exact
    assert Fraction(float(np.cumsum(cells[::-1].T, dtype=np.float64)[-1])) == exact


def test_float64_sums_stay_exact_for_the_largest_values_of_a_large_map() -> None:
    cells = np.full((128, 128), np.float32(2**10 - 2.0**-14))
    cells[::2] = np.float32(2.0**-20)
    exact = 64 * 128 * (Fraction(2**10) - Fraction(1, 2**14) + Fraction(1, 2**20))
    assert Fraction(float(np.cumsum(cells, dtype=np.float64)[-1])) == exact
