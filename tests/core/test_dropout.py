import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.models.dropout import draw_masks
from cereals_core.seeding import rng

SHAPE = (1, 20, 50, 100)
RATES = [0.0, 0.1, 0.5, 0.75, 0.99]
rates = st.one_of(st.sampled_from(RATES), st.floats(0, 0.999))
shapes = st.lists(st.tuples(*[st.integers(1, 7)] * 4), min_size=1, max_size=3)


def test_at_one_half_masks_are_the_bits_of_the_stream_doubled() -> None:
    first, second = draw_masks(rng(3, "masks"), [(1, 2, 4, 4), (1, 2, 3, 3)], 0.5)
    stream = rng(3, "masks")
    bits = ["".join(f"{byte:08b}" for byte in stream.bytes(count)) for count in (4, 3)]
    assert first.flatten().tolist() == [2.0 * int(bit) for bit in bits[0]]
    assert second.flatten().tolist() == [2.0 * int(bit) for bit in bits[1][:18]]


def test_elsewhere_a_mask_keeps_what_is_drawn_at_or_above_the_rate() -> None:
    (mask,) = draw_masks(rng(3, "masks"), [(1, 1, 2, 3)], 0.75)
    drawn = rng(3, "masks").random(6, np.float32)
    assert mask.flatten().tolist() == [4.0 if number >= 0.75 else 0.0 for number in drawn]


def test_without_dropout_a_mask_is_one() -> None:
    assert torch.equal(draw_masks(rng(0), [SHAPE], 0.0)[0], torch.ones(SHAPE))


@pytest.mark.parametrize("dropout", RATES)
def test_the_mean_is_one_within_five_standard_deviations(dropout: float) -> None:
    (mask,) = draw_masks(rng(1, "masks"), [SHAPE], dropout)
    deviation = math.sqrt(dropout / (1 - dropout) / math.prod(SHAPE))
    assert mask.double().mean().item() == pytest.approx(1, abs=5 * deviation + 1e-6)


@given(rates, shapes)
def test_masks_are_zero_or_the_inverse_of_the_share_kept(dropout: float, shapes: list[tuple[int, ...]]) -> None:
    masks = draw_masks(rng(0), shapes, dropout)
    assert [tuple(mask.shape) for mask in masks] == shapes
    assert all(mask.dtype == torch.float32 for mask in masks)
    kept = torch.cat([mask[mask != 0] for mask in masks])
    assert len(kept.unique()) <= 1
    torch.testing.assert_close(kept.double(), torch.full_like(kept, 1 / (1 - dropout)).double(), rtol=2.0**-22, atol=0)


@given(rates, shapes, st.integers(0, 2**32))
def test_equal_streams_give_equal_masks_drawn_one_after_another(
    dropout: float, shapes: list[tuple[int, ...]], seed: int
) -> None:
    stream = rng(seed)
    apart = [draw_masks(stream, [shape], dropout)[0] for shape in shapes]
    together = draw_masks(rng(seed), shapes, dropout)
    assert all(torch.equal(a, b) for a, b in zip(apart, together, strict=True))


@pytest.mark.parametrize("dropout", [0.3, 0.5])
def test_masks_of_one_stream_are_independent(dropout: float) -> None:
    first, second = (mask.bool() for mask in draw_masks(rng(2, "masks"), [SHAPE, SHAPE], dropout))
    shifted = first.flatten()[1:] & first.flatten()[:-1]
    both = (1 - dropout) ** 2
    deviation = math.sqrt(both * (1 - both) / math.prod(SHAPE))
    assert (first & second).double().mean().item() == pytest.approx(both, abs=5 * deviation)
    assert shifted.double().mean().item() == pytest.approx(both, abs=10 * deviation)


def test_the_path_of_single_bits_keeps_as_many_as_the_general_one() -> None:
    bits, general = (draw_masks(rng(4), [SHAPE], rate)[0].bool().double() for rate in (0.5, np.nextafter(0.5, 1)))
    deviation = math.sqrt(0.5 / math.prod(SHAPE))
    assert bits.mean().item() == pytest.approx(general.mean().item(), abs=5 * deviation)
