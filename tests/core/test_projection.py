import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from cereals_core.projection import fit, shared_out
from cereals_core.seeding import rng


def test_the_direction_of_most_variance_comes_first_with_its_sign_fixed() -> None:
    along = np.linspace(-3, 3, 50)
    cells = np.stack([1 - 4 * along, 2 + 3 * along, np.full(50, 5.0)], axis=1).astype(np.float32)
    found = fit([cells[:20], cells[20:]], 2)
    np.testing.assert_allclose(found.mean, [1, 2, 5], atol=1e-5)
    np.testing.assert_allclose(found.components[:, 0], [0.8, -0.6, 0], atol=1e-5)


def test_all_components_lose_nothing() -> None:
    cells = rng(0, "cells").normal(size=(200, 6)).astype(np.float32) + 3
    found = fit([cells], 6)
    kept = (cells - found.mean) @ found.components
    np.testing.assert_allclose(kept @ found.components.T + found.mean, cells, atol=1e-4)
    assert (np.diff(kept.var(0)) < 0).all()
    np.testing.assert_allclose(np.corrcoef(kept.T), np.eye(6), atol=1e-3)


@FEW
@given(st.lists(st.integers(1, 500), min_size=3, max_size=3), st.integers(3, 600))
def test_channels_are_shared_out_whole(channels: list[int], kept: int) -> None:
    given_out = shared_out(channels, kept)
    assert sum(given_out) == min(kept, sum(channels))
    assert all(1 <= each <= count for each, count in zip(given_out, channels, strict=True))
    if kept < sum(channels):
        exact = [kept * count / sum(channels) for count in channels]
        assert all(abs(a - b) <= 3 for a, b in zip(given_out, exact, strict=True))


@pytest.mark.parametrize(("kept", "expected"), [(96, (8, 23, 65)), (472, (40, 112, 320)), (3, (1, 1, 1))])
def test_those_of_one_encoder(kept: int, expected: tuple[int, ...]) -> None:
    assert shared_out((40, 112, 320), kept) == expected
