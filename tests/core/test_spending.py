import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from cereals_core.spending import Spending


def test_predictions_by_hand() -> None:
    """Half a click a pixel so far; of four queries 20 clicks were predicted, and 30 came."""
    spending = Spending(clicks_per_px=0.5, predicted=20, true=30)
    floored = spending.floored(np.array([-3.0, 0.0, 4.9, 5.1, 80.0]), pixels=100)
    np.testing.assert_allclose(floored, [5, 5, 5, 5.1, 80])
    np.testing.assert_allclose(spending.spent(floored, least=1), [7.5, 7.5, 7.5, 7.65, 120])
    np.testing.assert_allclose(spending.spent(np.array([0.1]), least=1), [1])


@pytest.mark.parametrize(
    ("predicted", "true", "expected"), [(0, 0, 1), (0, 50, 1), (10, 0, 0.1), (1, 1000, 10), (8, 4, 0.5)]
)
def test_corrections_are_bounded_and_none_is_made_before_the_first_queries(
    predicted: float, true: float, expected: float
) -> None:
    assert Spending(0.5, predicted, true).correction == expected


@FEW
@given(
    st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20),
    st.floats(0, 1),
    st.floats(0, 1e5),
    st.floats(0, 1e5),
)
def test_nothing_negative_is_spent(sums: list[float], rate: float, predicted: float, true: float) -> None:
    spending = Spending(rate, predicted, true)
    floored = spending.floored(np.array(sums), 64 * 64)
    assert (floored >= 0).all()
    assert (spending.spent(floored, 1.0) >= 1).all()
