import naive
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import score_maps, windows

from cereals_core.suppression import suppress

NO = -np.inf


def test_the_best_window_removes_what_overlaps_it() -> None:
    scores = np.array([[0.9, 1.0, 0.8, 0.1], [NO, 0.7, 0.2, 0.6]], dtype=np.float32)
    positions, values = suppress(scores, 2)
    assert positions.tolist() == [[0, 1], [1, 3]]
    assert values.tolist() == np.array([1.0, 0.6], np.float32).tolist()


def test_equal_scores_go_to_the_smaller_position() -> None:
    positions, _ = suppress(np.zeros((3, 5), np.float32), 2)
    assert positions.tolist() == [[0, 0], [0, 2], [0, 4], [2, 0], [2, 2], [2, 4]]


def test_a_map_without_candidates_gives_no_proposal() -> None:
    for shape in ((2, 3), (0, 0), (0, 4)):
        positions, values = suppress(np.full(shape, NO, np.float32), 2)
        assert (positions.shape, values.shape) == ((0, 2), (0,))
        assert (positions.dtype, values.dtype) == (np.int64, np.float32)


@given(score_maps(), windows)
def test_suppression_equals_listing_and_sorting_bit_for_bit(scores: np.ndarray, window: int) -> None:
    positions, values = suppress(scores, window)
    assert [tuple(at) for at in positions.tolist()] == naive.suppress(scores, window)
    assert values.tolist() == [scores[tuple(at)] for at in positions]


@given(score_maps(), windows, st.integers(0, 5))
def test_a_limit_gives_the_first_ones(scores: np.ndarray, window: int, limit: int) -> None:
    everything, limited = suppress(scores, window), suppress(scores, window, limit)
    for whole, part in zip(everything, limited, strict=True):
        assert part.tolist() == whole[:limit].tolist()


@given(score_maps(), windows, st.sampled_from([-1.0, 0.0, 0.5, 2.0]))
def test_none_is_below_the_least_score(scores: np.ndarray, window: int, least: float) -> None:
    positions, values = suppress(scores, window)
    kept = int((values >= least).sum())
    assert [part.tolist() for part in suppress(scores, window, least=least)] == [
        positions[:kept].tolist(),
        values[:kept].tolist(),
    ]


@given(score_maps(), windows)
def test_proposals_descend_overlap_none_and_leave_no_room(scores: np.ndarray, window: int) -> None:
    before = scores.copy()
    positions, values = suppress(scores, window)
    np.testing.assert_array_equal(scores, before)
    assert (np.diff(values) <= 0).all()
    apart = np.abs(positions[:, None] - positions[None]).max(axis=2)
    assert (apart + window * np.eye(len(positions)) >= window).all()
    for at in np.argwhere(scores > NO):
        assert (np.abs(positions - at).max(axis=1) < window).any()


@given(score_maps(), windows)
def test_layout_in_memory_does_not_matter(scores: np.ndarray, window: int) -> None:
    assert suppress(np.asfortranarray(scores), window)[0].tolist() == suppress(scores, window)[0].tolist()
