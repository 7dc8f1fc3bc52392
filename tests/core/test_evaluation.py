import math

import naive
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import spearmanr
from strategies import label_maps, shapes

from cereals_core.errors import CerealsError
from cereals_core.evaluation import confusion, cost_agreement, iou, mean_iou
from cereals_core.grid import VOID

CLASSES = 4
truth_and_prediction = shapes.flatmap(
    lambda shape: st.tuples(
        label_maps(CLASSES, st.just(shape)), hnp.arrays(np.int64, shape, elements=st.integers(0, CLASSES - 1))
    )
)


def test_confusion_and_iou_of_six_pixels() -> None:
    truth = np.array([[0, 0, 1], [1, 1, VOID]], np.uint8)
    matrix = confusion(truth, np.array([[0, 1, 1], [1, 0, 2]]), 3)
    assert matrix.tolist() == [[1, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert iou(matrix)[:2].tolist() == [1 / 3, 2 / 4]
    assert math.isnan(iou(matrix)[2])
    assert mean_iou(matrix) == pytest.approx((1 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_counts_with_zero() -> None:
    matrix = confusion(np.zeros((1, 2), np.uint8), np.array([[0, 1]]), 3)
    assert mean_iou(matrix) == pytest.approx((1 / 2 + 0) / 2)


def test_nothing_but_void_has_no_mean() -> None:
    assert math.isnan(mean_iou(confusion(np.full((2, 2), VOID, np.uint8), np.zeros((2, 2), int), 3)))


@pytest.mark.parametrize(
    ("truth", "prediction", "name"), [(3, 0, "truth"), (0, 3, "prediction"), (0, -1, "prediction")]
)
def test_classes_that_do_not_exist_are_refused(truth: int, prediction: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} holds class .*expected 0 to 2") as got:
        confusion(np.array([[truth]], np.uint8), np.array([[prediction]]), 3)
    assert isinstance(got.value, CerealsError)


@given(truth_and_prediction)
def test_iou_equals_that_of_sets(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth, prediction = pair
    matrix = confusion(truth, prediction, CLASSES)
    assert matrix.dtype == np.int64
    assert matrix.sum() == (truth != VOID).sum()
    np.testing.assert_allclose(iou(matrix), naive.iou(truth, prediction, CLASSES), rtol=1e-12)
    np.testing.assert_array_equal(confusion(truth, prediction.astype(np.uint8), CLASSES), matrix)


@given(truth_and_prediction)
def test_a_perfect_prediction_has_a_mean_of_one(pair: tuple[np.ndarray, np.ndarray]) -> None:
    truth = pair[0]
    value = mean_iou(confusion(truth, truth, CLASSES))
    assert value == 1 or (math.isnan(value) and (truth == VOID).all())


def test_agreement_of_three_regions() -> None:
    agreement = cost_agreement(np.array([2.0, 4.0, 12.0]), np.array([1.0, 2.0, 3.0]))
    assert agreement.sum_ratio == 3
    assert agreement.spearman == pytest.approx(1)
    assert agreement.pearson == pytest.approx(10 / math.sqrt(2 * 56))
    assert agreement.mean_absolute_error == pytest.approx((1 + 2 + 9) / 3)


def test_regions_without_a_prediction_are_left_out() -> None:
    agreement = cost_agreement(np.array([1.0, 4.0, math.nan]), np.array([2.0, 4.0, 9.0]))
    assert (agreement.regions, agreement.predicted, agreement.true, agreement.mean_absolute_error) == (2, 5, 6, 0.5)


def test_agreement_is_nan_where_it_is_not_defined() -> None:
    none, one = (cost_agreement(np.ones(count), np.full(count, 2.0)) for count in (0, 1))
    constant, free = cost_agreement(np.ones(3), np.arange(3)), cost_agreement(np.ones(2), np.zeros(2))
    assert (none.regions, none.predicted, none.true) == (0, 0, 0)
    assert math.isnan(none.sum_ratio)
    assert math.isnan(none.mean_absolute_error)
    assert (one.sum_ratio, one.mean_absolute_error) == (0.5, 1)
    for agreement in (one, constant, free):
        assert math.isnan(agreement.pearson)
        assert math.isnan(agreement.spearman)
    assert math.isnan(free.sum_ratio)


@given(st.lists(st.tuples(*[st.integers(0, 20)] * 2), min_size=2, max_size=30))
def test_rank_correlation_is_scipys(costs: list[tuple[int, int]]) -> None:
    predicted, true = np.array(costs, dtype=np.float32).T
    agreement = cost_agreement(predicted, true)
    if np.ptp(predicted) and np.ptp(true):
        assert agreement.spearman == pytest.approx(spearmanr(predicted, true).statistic, abs=1e-12)
        assert -1 <= agreement.pearson <= 1
