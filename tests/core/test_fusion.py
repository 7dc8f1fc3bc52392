import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import masks, quantised_maps, shapes

from cereals_core.fusion import FUSIONS, Extent, extent_of, fuse, scale

EMPTY = Extent(np.inf, -np.inf)
units = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32))
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


@pytest.mark.parametrize(("name", "expected"), [("g1", 0.5), ("g2", 0.375), ("g3", 0.55), ("none", 0.75)])
def test_fusions_of_three_quarters_information_at_half_the_cost(name: str, expected: float) -> None:
    score = fuse(name, np.array([0.75], np.float32), np.array([0.5], np.float32), 0.2, np.array([True]))
    assert score.dtype == np.float32
    assert score.tolist() == [np.float32(expected)]


def test_windows_that_are_no_candidates_score_minus_infinity() -> None:
    assert fuse("g1", np.ones(2, np.float32), np.zeros(2, np.float32), 0.5, np.array([False, True])).tolist() == [
        -np.inf,
        1,
    ]


@pytest.mark.parametrize("name", FUSIONS)
def test_no_cost_is_the_same_cost_for_all(name: str) -> None:
    information, anywhere = np.array([0.1, 0.9], np.float32), np.array([True, True])
    without = fuse(name, information, None, 0.3, anywhere)
    assert without.tolist() == fuse(name, information, np.zeros(2, np.float32), 0.3, anywhere).tolist()


@given(sums_and_candidates)
def test_scaling_equals_the_loop_bit_for_bit(pool: tuple[np.ndarray, np.ndarray]) -> None:
    sums, mask = pool[0].astype(np.float32), pool[1]
    scaled = scale(sums, extent_of(sums, mask))
    assert ((scaled >= 0) & (scaled <= 1)).all()
    if mask.any():
        assert scaled[mask].tolist() == naive.scale(list(sums[mask]))


@given(st.sampled_from(sorted(FUSIONS)), unit_maps, units)
def test_fusion_equals_the_loop_bit_for_bit(name: str, maps: tuple[np.ndarray, np.ndarray], alpha: float) -> None:
    information, cost = maps
    fast = fuse(name, information, cost, alpha, np.ones(information.shape, bool))
    slow = [naive.fuse(name, i, c, alpha) for i, c in zip(information.flat, cost.flat, strict=True)]
    assert fast.ravel().tolist() == np.array(slow, np.float32).tolist()


@given(st.sampled_from(["g1", "g2", "g3"]), units, units, units, units)
def test_more_information_never_scores_less_and_more_cost_never_more(
    name: str, information: float, cost: float, other: float, alpha: float
) -> None:
    def score(i: float, c: float) -> float:
        return float(FUSIONS[name](np.array([i], np.float32), np.array([c], np.float32), alpha)[0])

    assert score(max(information, other), cost) >= score(min(information, other), cost)
    assert score(information, max(cost, other)) <= score(information, min(cost, other))
