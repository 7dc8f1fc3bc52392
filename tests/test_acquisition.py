import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.acquisition import Proposals, best_of, regions_in_budget, top_k
from cereals_core.errors import CerealsError

KEYS = ("score", "y", "x", "image_rank")


@st.composite
def pools(draw: st.DrawFn) -> Proposals:
    """Proposals of a pool with many equal scores; no two are at one place of one image."""
    places = draw(st.lists(st.tuples(*[st.integers(0, 4)] * 3), unique=True, max_size=40))
    scores = draw(st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0]), min_size=len(places), max_size=len(places)))
    y, x, rank = np.array(places, dtype=np.int64).reshape(-1, 3).T
    columns = {"score": np.array(scores, np.float32), "y": y, "x": x, "image_rank": rank}
    return columns | {"image": np.array([f"image-{place}" for place in rank], dtype=object)}


def best_indices(pool: Proposals, k: int) -> np.ndarray:
    return top_k(*(pool[key] for key in KEYS), k)


def test_two_images_hold_sixteen_regions_of_a_quarter_of_their_sides() -> None:
    assert regions_in_budget(1, 1024 * 2048, 128) == 128
    assert regions_in_budget(2.5, 100 * 100, 64) == 6
    assert regions_in_budget(1, 64 * 64, 64) == 1


def test_a_budget_below_one_region_is_refused_with_the_remedy() -> None:
    with pytest.raises(
        ValueError, match=r"0\.5 is a budget of 2048 pixels.*raise images_per_round to at least 1,"
    ) as got:
        regions_in_budget(0.5, 64 * 64, 64)
    assert isinstance(got.value, CerealsError)


def test_ties_go_to_the_smaller_position_then_the_smaller_image() -> None:
    scores = np.array([0.5, 0.5, 0.9, 0.5, 0.5], dtype=np.float32)
    y, x, rank = np.array([1, 0, 7, 0, 0]), np.array([0, 9, 7, 2, 2]), np.array([0, 1, 1, 1, 0])
    assert top_k(scores, y, x, rank, 5).tolist() == [2, 4, 3, 1, 0]
    assert top_k(scores, y, x, rank, 2).tolist() == [2, 4]


def test_nothing_in_nothing_out() -> None:
    assert best_of([], 3) == {}
    empty = {key: np.zeros(0) for key in KEYS}
    assert {key: len(column) for key, column in best_of([empty, empty], 3).items()} == dict.fromkeys(KEYS, 0)


@given(pools(), st.integers(1, 45))
def test_top_k_equals_sorting_everything(pool: Proposals, k: int) -> None:
    assert best_indices(pool, k).tolist() == naive.top_k(*(pool[key] for key in KEYS), k)


@given(pools(), st.integers(1, 45), st.permutations(range(40)), st.sets(st.integers(0, 40), max_size=6))
def test_the_best_do_not_depend_on_chunks_or_their_order(
    pool: Proposals, k: int, order: list[int], cuts: set[int]
) -> None:
    shuffled = np.array([place for place in order if place < len(pool["score"])], dtype=np.int64)
    chunks = [{name: column[part] for name, column in pool.items()} for part in np.split(shuffled, sorted(cuts))]
    best = best_of(iter(chunks), k)
    expected = best_indices(pool, k)
    assert best.keys() == pool.keys()
    assert all(best[name].tolist() == column[expected].tolist() for name, column in pool.items())


def test_a_large_pool_with_few_distinct_scores() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 50, 100_000).astype(np.float32)
    y, x, rank = (random.integers(0, 100, 100_000) for _ in range(3))
    np.testing.assert_array_equal(top_k(scores, y, x, rank, 5000), np.lexsort((rank, x, y, -scores))[:5000])
