from typing import Any

import naive
import naive_classes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.acquisition import (
    Budget,
    Cutoff,
    Proposals,
    best_of_classes,
    best_within,
    best_within_classes,
    round_budget,
    top_k,
)
from cereals_core.acquisition_settings import Acquisition
from cereals_core.errors import CerealsError

KEYS = ("score", "y", "x", "image_rank")


@st.composite
def pools(draw: st.DrawFn) -> Proposals:
    """Proposals of a pool with many equal scores; no two are at one place of one image."""
    places = draw(st.lists(st.tuples(*[st.integers(0, 4)] * 3), unique=True, max_size=40))
    scores = draw(st.lists(st.sampled_from([0.0, 0.5, 0.75, 1.0]), min_size=len(places), max_size=len(places)))
    y, x, rank = np.array(places, dtype=np.int64).reshape(-1, 3).T
    spends = draw(st.lists(st.integers(1, 6), min_size=len(places), max_size=len(places)))
    if draw(st.booleans()):
        spends = [4] * len(places)
    columns = {
        "score": np.array(scores, np.float32),
        "y": y,
        "x": x,
        "image_rank": rank,
        "spend": np.array(spends, float),
    }
    return columns


def wanted(**keys: Any) -> Acquisition:
    return Acquisition(**keys)


def test_two_images_hold_sixteen_regions_of_a_quarter_of_their_sides() -> None:
    assert round_budget(wanted(images_per_round=1, window_px=128), 1024 * 2048, 9).most_queries == 128
    assert round_budget(wanted(images_per_round=2.5, window_px=64), 100 * 100, 9).most_queries == 6
    assert round_budget(wanted(images_per_round=1, window_px=64), 64 * 64, 9) == Budget(4096, "pixels", 4096)


def test_budgets_of_whole_images_and_of_clicks() -> None:
    assert round_budget(wanted(strategy="entropy-images", images_per_round=3), 200, 100) == Budget(600, "pixels", 100)
    assert round_budget(wanted(clicks_per_round=70), 200, 100) == Budget(70, "clicks", 1)


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        (
            {"images_per_round": 0.5, "window_px": 64},
            "images_per_round = 0.5 is a budget of 2048 pixels.*raise it 2-fold",
        ),
        ({"images_per_round": 0.1, "unit": "image"}, r"a budget of 410 pixels.*\(4000 pixels\); raise it 9.77-fold$"),
        ({"clicks_per_round": 0.5}, "clicks_per_round = 0.5 is a budget of 0 clicks"),
    ],
)
def test_a_budget_below_one_query_is_refused_with_the_remedy(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as got:
        round_budget(wanted(**keys), 64 * 64, 4000)
    assert isinstance(got.value, CerealsError)


def test_ties_go_to_the_smaller_position_then_the_smaller_image() -> None:
    scores = np.array([0.5, 0.5, 0.9, 0.5, 0.5], dtype=np.float32)
    y, x, rank = np.array([1, 0, 7, 0, 0]), np.array([0, 9, 7, 2, 2]), np.array([0, 1, 1, 1, 0])
    tied = {"score": scores, "y": y, "x": x, "image_rank": rank}
    assert top_k(tied, 5).tolist() == [2, 4, 3, 1, 0]
    assert top_k(tied, 2).tolist() == [2, 4]


def proposals(*rows: tuple[float, float]) -> Proposals:
    """Proposals of (score, spend), one an image."""
    score, spend = np.array(rows).reshape(-1, 2).T
    zeros = np.zeros(len(rows), np.int64)
    return {
        "score": score.astype(np.float32),
        "y": zeros,
        "x": zeros,
        "image_rank": np.arange(len(rows)),
        "spend": spend,
    }


def test_the_budget_ends_with_the_first_that_it_does_not_hold() -> None:
    pool = proposals((0.9, 4), (0.1, 1), (0.8, 5), (0.5, 3), (0.4, 1))
    assert best_within(pool, 10).tolist() == [0, 2]  # 4 + 5 + 3 is more than 10, and no cheaper one steps in
    assert best_within(pool, 12).tolist() == [0, 2, 3]


def test_the_best_one_is_asked_for_whatever_it_spends() -> None:
    assert best_within(proposals((0.5, 1), (0.9, 400)), 3).tolist() == [1]


def test_nothing_in_nothing_out() -> None:
    assert best_within({key: np.zeros(0) for key in (*KEYS, "spend")}, 3).tolist() == []


@given(pools(), st.integers(1, 45))
def test_top_k_equals_sorting_everything(pool: Proposals, k: int) -> None:
    assert top_k(pool, k).tolist() == naive.top_k(*(pool[key] for key in KEYS), k)


@given(pools(), st.integers(1, 60))
def test_the_best_equal_a_loop_over_everything_sorted(pool: Proposals, budget: int) -> None:
    expected = naive.best_within(*(pool[key] for key in KEYS), pool["spend"], budget)
    assert best_within(pool, budget).tolist() == expected


@given(pools(), st.integers(1, 12), st.lists(st.integers(1, 40), max_size=8))
def test_reach_never_leaves_out_one_of_the_best(pool: Proposals, k: int, cuts: list[int]) -> None:
    cutoff, parts = Cutoff(k), np.split(pool["score"], sorted(cuts))
    best = np.sort(pool["score"])[::-1][:k]
    for number, part in [*enumerate(parts), *enumerate(parts)]:  # as after a retry
        before = cutoff.least
        cutoff.add(number, part)
        assert before <= cutoff.least
        assert len(best) < k or cutoff.least <= best[-1]
    assert cutoff.least == (best[-1] if len(best) == k else -np.inf)


def test_a_large_pool_with_few_distinct_scores() -> None:
    random = np.random.default_rng(0)
    scores = random.integers(0, 50, 100_000).astype(np.float32)
    y, x, rank = (random.integers(0, 100, 100_000) for _ in range(3))
    pool = {"score": scores, "y": y, "x": x, "image_rank": rank}
    np.testing.assert_array_equal(top_k(pool, 5000), np.lexsort((rank, x, y, -scores))[:5000])


@given(pools(), st.integers(0, 60), st.sampled_from([0.0, 0.3, 0.66, 1.0]), st.integers(1, 4))
def test_queries_by_class_equal_the_loop(pool: Proposals, budget: int, share: float, classes: int) -> None:
    of = np.arange(len(pool["score"])) % classes
    rows = [
        {**{name: float(column[index]) for name, column in pool.items()}, "class": int(of[index])}
        for index in range(len(of))
    ]
    assert best_within_classes(pool, of, budget, share).tolist() == naive_classes.best_within_classes(
        rows, budget, share
    )


def test_a_share_for_each_class_takes_what_scores_alone_would_not() -> None:
    """Six regions of one class score higher than three of another; of a budget of four half goes by class."""
    pool = proposals(*[(0.9, 1)] * 6, *[(0.1, 1)] * 3)
    of = np.array([0] * 6 + [1] * 3)
    assert best_within(pool, 4).tolist() == [0, 1, 2, 3]
    assert best_within_classes(pool, of, 4, 0.5).tolist() == [0, 1, 2, 6]
    assert best_within_classes(pool, of, 4, 1.0).tolist() == [0, 1, 6, 7]
    assert [each.tolist() for each in best_of_classes(pool, of, 2)] == [[0, 1], [6, 7]]
