import math
import weakref
from collections.abc import Iterator
from fractions import Fraction
from random import Random

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import FEW, quantised_maps

from cereals_core import strategies
from cereals_core.information import (
    MEASURES,
    SAMPLED_MEASURES,
    bald,
    entropy,
    least_confidence,
    margin,
    quantise,
    vote,
    vote_entropy,
)

LOGIT_SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3))
SAMPLE_SHAPES = st.tuples(st.integers(1, 9), st.just(2), st.integers(1, 5), st.integers(1, 3), st.just(3))
TWINS = {name: getattr(naive, name) for name in MEASURES}
HALVES = [torch.float16, torch.bfloat16]


@st.composite
def logits_of(draw: st.DrawFn, shape: st.SearchStrategy[tuple[int, ...]], scale: float = 2.0**100) -> np.ndarray:
    """Logits up to `scale`, classes being the third axis from the end; some are ruled out, but the last class never."""
    small, large = st.floats(-4, 4, width=32), st.floats(-scale, scale, width=32)
    logits = draw(hnp.arrays(np.float32, shape, elements=small | large | st.just(-np.inf)))
    last = logits[..., -1, :, :]
    last[np.isinf(last)] = 0
    return logits


def pixel(*values: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.tensor(values, dtype=dtype).reshape(1, -1, 1, 1)


def test_every_name_in_settings_is_a_measure_or_random() -> None:
    assert {*MEASURES, *SAMPLED_MEASURES} == strategies.MEASURES.keys()
    assert SAMPLED_MEASURES.keys() == {"vote_entropy", "bald"}


def test_entropy_of_one_in_two_and_one_in_four() -> None:
    assert entropy(pixel(0, 0)).item() == pytest.approx(math.log(2))
    halves = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert entropy(pixel(math.log(2), 0, 0)).item() == pytest.approx(halves, abs=1e-6)


def test_entropy_of_certainty_is_zero_and_ruled_out_classes_do_not_count() -> None:
    assert entropy(pixel(0, -1000)).item() == 0
    assert entropy(pixel(3e38, -3e38)).item() == 0
    assert entropy(pixel(0, 0, -math.inf)).item() == pytest.approx(math.log(2))


def test_least_confidence_and_margin_of_a_half_a_third_and_a_sixth() -> None:
    logits = pixel(math.log(2), math.log(3), 0)
    assert least_confidence(logits).item() == pytest.approx(1 - 1 / 2, abs=1e-7)
    assert margin(logits).item() == pytest.approx(1 - (1 / 2 - 1 / 3), abs=1e-7)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_least_confidence_and_margin_of_equal_classes_and_of_certainty(classes: int) -> None:
    equal, certain = pixel(*[7.0] * classes), pixel(3e38, *[-math.inf] * (classes - 1))
    assert least_confidence(equal).item() == 1 - 1 / classes
    assert margin(equal).item() == (1 if classes > 1 else 0)
    assert least_confidence(certain).item() == margin(certain).item() == 0


@FEW
@given(logits_of(st.just((2, 2, 3, 3))))
def test_of_two_classes_the_margin_is_twice_the_least_confidence(logits: np.ndarray) -> None:
    both = torch.from_numpy(logits)
    torch.testing.assert_close(margin(both), 2 * least_confidence(both), atol=3e-7, rtol=0)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("dtype", HALVES)
def test_measures_of_half_precision_are_those_of_its_values(name: str, dtype: torch.dtype) -> None:
    logits = pixel(12, 0.5, -3, 11.5, dtype=dtype)
    assert MEASURES[name](logits).dtype == torch.float32
    assert MEASURES[name](logits).item() == pytest.approx(TWINS[name](logits.double().numpy()).item(), abs=1e-6)


@pytest.mark.parametrize("name", MEASURES)
@FEW
@given(logits_of(LOGIT_SHAPES))
def test_measures_of_any_scale_match_the_loop_and_stay_in_range(name: str, logits: np.ndarray) -> None:
    fast, classes = MEASURES[name](torch.from_numpy(logits)).numpy(), logits.shape[1]
    assert fast.shape == (logits.shape[0], *logits.shape[2:])
    np.testing.assert_allclose(fast, TWINS[name](logits.astype(np.float64)), atol=2e-6)
    most = {"entropy": math.log(classes), "least_confidence": 1 - 1 / classes, "margin": 1.0}[name]
    assert fast.min() >= 0
    assert fast.max() <= most + 1e-6


@pytest.mark.parametrize("name", MEASURES)
@FEW
@given(hnp.arrays(np.float32, LOGIT_SHAPES, elements=st.floats(-30, 30, width=32)), st.permutations(range(5)))
def test_measures_do_not_depend_on_the_order_of_classes(name: str, logits: np.ndarray, order: list[int]) -> None:
    shuffled = [label for label in order if label < logits.shape[1]]
    first, second = (MEASURES[name](torch.from_numpy(array)) for array in (logits, logits[:, shuffled]))
    torch.testing.assert_close(first, second, atol=2e-6, rtol=0)


def test_votes_go_to_the_largest_logit_and_ties_to_the_smaller_class() -> None:
    votes = [vote(logits).flatten().tolist() for logits in (pixel(0, 2, 1), pixel(0, 7, 7), pixel(5, 5, 5))]
    assert votes == [[0, 1, 0], [0, 1, 0], [1, 0, 0]]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_of_a_large_map_go_to_the_smaller_class(layout: torch.memory_format, dtype: torch.dtype) -> None:
    values = np.random.default_rng(0).integers(0, 4, (2, 19, 33, 70))
    votes = vote(torch.from_numpy(values).to(dtype).contiguous(memory_format=layout))
    np.testing.assert_array_equal(votes.numpy().argmax(axis=1), values.argmax(axis=1))
    assert (votes.sum(dim=1) == 1).all()


def test_vote_entropy_of_three_to_one() -> None:
    samples = [pixel(1, 0, -1), pixel(9, 0, 8), pixel(0, 1, 0), pixel(2, 2, -math.inf)]
    expected = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert vote_entropy(samples).item() == pytest.approx(expected, abs=1e-7)


def test_vote_entropy_of_agreement_is_zero_up_to_255_samples() -> None:
    assert vote_entropy([pixel(1, 0)] * 255).item() == 0


@FEW
@given(hnp.arrays(np.float32, SAMPLE_SHAPES, elements=st.integers(-2, 2).map(float)))
def test_votes_and_their_entropy_match_the_loop(samples: np.ndarray) -> None:
    counts = naive.votes(samples)
    np.testing.assert_array_equal(sum(vote(torch.from_numpy(logits)).numpy() for logits in samples), counts)
    fast = vote_entropy(map(torch.from_numpy, samples)).numpy()
    assert fast.dtype == np.float32
    np.testing.assert_array_equal(fast, naive.vote_entropy(counts, len(samples)).astype(np.float32))


def test_bald_of_two_certain_samples_that_contradict_each_other_is_log_2() -> None:
    assert bald([pixel(0, -math.inf), pixel(-math.inf, 0)]).item() == pytest.approx(math.log(2), abs=1e-7)
    assert bald([pixel(3e38, -3e38), pixel(-3e38, 3e38)]).item() == pytest.approx(math.log(2), abs=1e-7)


def test_bald_of_three_to_one_and_one_to_one() -> None:
    """Samples (3/4, 1/4) and (1/2, 1/2): the mean is (5/8, 3/8)."""
    mean, first = (-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (5 / 8, 3 / 4))
    expected = mean - (first + math.log(2)) / 2
    assert bald([pixel(math.log(3), 0), pixel(0, 0)]).item() == pytest.approx(expected, abs=1e-7)


@FEW
@given(logits_of(LOGIT_SHAPES), st.integers(1, 255))
def test_bald_of_equal_samples_is_zero_however_uncertain(logits: np.ndarray, number: int) -> None:
    values = bald([torch.from_numpy(logits)] * number)
    assert values.min() >= 0
    assert values.max() < 1e-12


@pytest.mark.parametrize("dtype", HALVES)
def test_bald_of_half_precision_is_that_of_its_values(dtype: torch.dtype) -> None:
    samples = [pixel(12, 0.5, -3, 11.5, dtype=dtype), pixel(-7, 0, 0.1, -math.inf, dtype=dtype)]
    expected = naive.bald(np.stack([logits.double().numpy() for logits in samples]))
    assert bald(samples).dtype == torch.float32
    assert bald(samples).item() == pytest.approx(expected.item(), abs=1e-7)


@FEW
@given(logits_of(SAMPLE_SHAPES))
def test_bald_of_any_scale_matches_the_loop_and_stays_in_range(samples: np.ndarray) -> None:
    fast = bald(map(torch.from_numpy, samples)).numpy()
    assert fast.dtype == np.float32
    np.testing.assert_allclose(fast, naive.bald(samples.astype(np.float64)), atol=2e-7)
    assert fast.min() >= 0
    assert fast.max() <= math.log(min(samples.shape[0], samples.shape[2])) + 2e-7


@FEW
@given(logits_of(SAMPLE_SHAPES, scale=30.0), st.randoms(use_true_random=False))
def test_bald_does_not_depend_on_the_order_of_samples(samples: np.ndarray, random: Random) -> None:
    order = random.sample(range(len(samples)), len(samples))
    first, second = (bald(map(torch.from_numpy, array)) for array in (samples, samples[order]))
    torch.testing.assert_close(first, second, atol=2e-7, rtol=0)


@pytest.mark.parametrize("name", SAMPLED_MEASURES)
def test_no_more_than_two_samples_are_held(name: str) -> None:
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = []

    def samples() -> Iterator[torch.Tensor]:
        for number in range(20):
            logits = torch.full((1, 3, 2, 2), float(number))
            alive.add(logits)
            most.append(len(alive))
            yield logits

    assert (SAMPLED_MEASURES[name](samples()) == 0).all()
    assert max(most) <= 2


def test_quantise_rounds_to_eleven_bits_and_ties_to_even() -> None:
    values = np.array([0, 1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-10, 3 + 2**-10, 2**-25, 3 * 2**-25, 65519, 65520])
    expected = [0, 1, 1 + 2**-9, -1 - 2**-10, 3, 0, 2**-23, 65504, np.inf]
    assert quantise(values.astype(np.float32)).tolist() == expected


@given(hnp.arrays(np.float32, 8, elements=st.floats(-(2.0**10), 2.0**10, width=32)))
def test_a_quantised_value_has_moved_by_a_2048th_at_most(values: np.ndarray) -> None:
    rounded = quantise(values)
    assert rounded.dtype == np.float16
    assert all(value.is_integer() for value in (rounded.astype(np.float64) * 2**24).tolist())
    assert (np.abs(rounded.astype(np.float64) - values) <= np.maximum(np.abs(values) * 2.0**-11, 2.0**-25)).all()
    np.testing.assert_array_equal(quantise(rounded), rounded)


@given(quantised_maps())
def test_float64_sums_of_quantised_maps_are_exact_in_any_order(cells: np.ndarray) -> None:
    exact = Fraction(sum(int(value * 2**24) for value in cells.ravel().tolist()), 2**24)
    assert Fraction(float(cells.sum(dtype=np.float64))) == exact
    assert Fraction(float(np.cumsum(cells[::-1].T, dtype=np.float64)[-1])) == exact


def test_float64_sums_stay_exact_for_the_largest_values_of_a_large_map() -> None:
    cells = np.full((128, 128), np.float16(2**10 - 2.0**-1))
    cells[::2] = np.float16(2.0**-24)
    exact = 64 * 128 * (Fraction(2**10) - Fraction(1, 2) + Fraction(1, 2**24))
    assert Fraction(float(np.cumsum(cells, dtype=np.float64)[-1])) == exact
