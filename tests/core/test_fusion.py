import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import masks, quantised_maps, shapes

from cereals_core.fusion import FUSIONS, Extent, extent_of, fuse, noisy, scale
from cereals_core.seeding import rng

EMPTY = Extent(np.inf, -np.inf)
units = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
offsets = st.floats(2**-6, 1, width=32)
unit_maps = shapes.flatmap(lambda shape: st.tuples(*[hnp.arrays(np.float32, shape, elements=units)] * 2))
sums_and_candidates = shapes.flatmap(lambda shape: st.tuples(quantised_maps(st.just(shape)), masks(st.just(shape))))


def test_extent_and_scaling_of_a_small_pool() -> None:
    first, second = np.array([2, 4], np.float32), np.array([3, 10, 99], np.float32)
    assert extent_of(first, np.array([True, True])) == Extent(2, 4)
    assert extent_of(second, np.array([True, True, False])) == Extent(3, 10)
    extent = Extent(2, 10)
    assert scale(first, extent).tolist() == [0, 0.25]
    assert scale(second, extent).tolist() == [0.125, 1, 1]


def test_an_empty_mask_gives_the_empty_extent() -> None:
    assert extent_of(np.ones(3, np.float32), np.zeros(3, bool)) == EMPTY
    assert scale(np.ones((2, 2), np.float32), EMPTY).tolist() == [[0, 0], [0, 0]]


def test_a_constant_map_scales_to_zero() -> None:
    assert scale(np.full(3, 7, np.float32), Extent(7, 7)).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "expected"), [("g1", 0.5), ("g2", 0.375), ("g3", 0.55), ("per_click", 1.0), ("none", 0.75)]
)
def test_fusions_of_three_quarters_information_at_half_the_cost(name: str, expected: float) -> None:
    score = fuse(name, np.array([0.75], np.float32), np.array([0.5], np.float32), 0.2, 0.25, np.array([True]))
    assert score.dtype == np.float32
    assert score.tolist() == [np.float32(expected)]


def test_windows_that_are_no_candidates_score_minus_infinity() -> None:
    assert fuse("g1", np.ones(2, np.float32), np.zeros(2, np.float32), 0.5, 0.1, np.array([False, True])).tolist() == [
        -np.inf,
        1,
    ]


@pytest.mark.parametrize("name", FUSIONS)
def test_no_cost_is_the_same_cost_for_all(name: str) -> None:
    information, anywhere = np.array([0.1, 0.9], np.float32), np.array([True, True])
    without = fuse(name, information, None, 0.3, 0.1, anywhere)
    assert without.tolist() == fuse(name, information, np.zeros(2, np.float32), 0.3, 0.1, anywhere).tolist()


@given(sums_and_candidates)
def test_scaling_equals_the_loop_bit_for_bit(pool: tuple[np.ndarray, np.ndarray]) -> None:
    sums, mask = pool[0].astype(np.float32), pool[1]
    scaled = scale(sums, extent_of(sums, mask))
    assert ((scaled >= 0) & (scaled <= 1)).all()
    if mask.any():
        assert scaled[mask].tolist() == naive.scale(list(sums[mask]))


@given(st.sampled_from(sorted(FUSIONS)), unit_maps, units, offsets)
def test_fusion_equals_the_loop_bit_for_bit(
    name: str, maps: tuple[np.ndarray, np.ndarray], alpha: float, offset: float
) -> None:
    information, cost = maps
    fast = fuse(name, information, cost, alpha, offset, np.ones(information.shape, bool))
    slow = [naive.fuse(name, i, c, alpha, offset) for i, c in zip(information.flat, cost.flat, strict=True)]
    assert fast.ravel().tolist() == np.array(slow, np.float32).tolist()


@given(st.sampled_from(["g1", "g2", "g3", "per_click"]), units, units, units, units, offsets)
def test_more_information_never_scores_less_and_more_cost_never_more(
    name: str, information: float, cost: float, other: float, alpha: float, offset: float
) -> None:
    def score(i: float, c: float) -> float:
        return float(FUSIONS[name](np.array([i], np.float32), np.array([c], np.float32), alpha, offset)[0])

    assert score(max(information, other), cost) >= score(min(information, other), cost)
    assert score(information, max(cost, other)) <= score(information, min(cost, other))


def test_noise_draws_windows_in_proportion_to_a_power_of_their_scores() -> None:
    """At a strength of 1/2 scores of 1, 2 and 3 are best as often as 1, 4 and 9 of 14 times."""
    scores = np.tile(np.array([1, 2, 3, -np.inf], np.float32), (20_000, 1))
    drawn = noisy(scores, 0.5, rng(0, "noise"))
    assert drawn.dtype == np.float32
    assert (drawn[:, 3] == -np.inf).all()
    shares = np.bincount(drawn.argmax(axis=1), minlength=4) / len(drawn)
    np.testing.assert_allclose(shares, np.array([1, 4, 9, 0]) / 14, atol=0.015)


def test_a_score_of_zero_may_still_be_drawn_last() -> None:
    drawn = noisy(np.array([0.0, 1.0], np.float32), 1.0, rng(0, "noise"))
    assert np.isfinite(drawn).all()
    assert drawn[0] < drawn[1]
