import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from strategies import FEW

from cereals_core.grid import VOID
from cereals_core.training import cost_loss, segmentation_loss

CLASSES = 3
maps = st.tuples(st.integers(1, 4), st.integers(1, 4))
logit_maps = maps.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, (CLASSES, *shape), elements=st.floats(-20, 20, width=32)),
        hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 2, VOID])).filter(lambda m: (m != VOID).any()),
    )
)
click_maps = maps.flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, shape, elements=st.floats(-20, 20, width=32)),
        hnp.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.5, 40.0, np.nan])).filter(
            lambda m: not np.isnan(m).all()
        ),
    )
)


def test_cross_entropy_of_two_cells_with_a_third_void() -> None:
    logits = torch.tensor([[0.0, math.log(3), 50.0], [0.0, 0.0, -50.0]]).reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 0, VOID]]], dtype=torch.uint8)
    assert segmentation_loss(logits, labels).item() == pytest.approx((math.log(2) + math.log(4 / 3)) / 2)


def test_squared_error_of_two_cells_with_a_third_unlabelled() -> None:
    prediction = torch.tensor([1.0, -2.0, 1e30]).reshape(1, 1, 1, 3)
    clicks = torch.tensor([[[4.0, -1.0, math.nan]]])
    assert cost_loss(prediction, clicks).item() == (9 + 1) / 2


def test_losses_of_half_precision_are_those_of_its_values_in_float32() -> None:
    output = torch.linspace(-9, 9, 24).reshape(1, 2, 3, 4).bfloat16()
    labels, clicks = torch.ones((1, 3, 4), dtype=torch.uint8), torch.full((1, 3, 4), 0.3)
    assert torch.equal(segmentation_loss(output, labels), segmentation_loss(output.float(), labels))
    assert torch.equal(cost_loss(output[:, :1], clicks), cost_loss(output[:, :1].float(), clicks))


@FEW
@given(logit_maps)
def test_cross_entropy_matches_the_loop_and_void_has_no_gradient(arrays: tuple[np.ndarray, np.ndarray]) -> None:
    logits, labels = torch.from_numpy(arrays[0])[None].requires_grad_(), arrays[1]
    loss = segmentation_loss(logits, torch.from_numpy(labels)[None])
    terms = []
    for y, x in zip(*np.nonzero(labels != VOID), strict=True):
        weights = [math.exp(value) for value in arrays[0][:, y, x].tolist()]
        terms.append(-math.log(weights[labels[y, x]] / math.fsum(weights)))
    assert loss.item() == pytest.approx(math.fsum(terms) / len(terms), abs=1e-5)
    loss.backward()
    assert logits.grad is not None
    assert (logits.grad[0, :, torch.from_numpy(labels == VOID)] == 0).all()


@FEW
@given(click_maps)
def test_squared_error_matches_the_loop_and_unlabelled_cells_have_no_gradient(
    arrays: tuple[np.ndarray, np.ndarray],
) -> None:
    prediction, clicks = torch.from_numpy(arrays[0])[None, None].requires_grad_(), arrays[1]
    loss = cost_loss(prediction, torch.from_numpy(clicks)[None])
    labelled = ~np.isnan(clicks)
    pairs = list(zip(arrays[0][labelled].tolist(), clicks[labelled].tolist(), strict=True))
    assert loss.item() == pytest.approx(math.fsum((a - b) ** 2 for a, b in pairs) / len(pairs), rel=1e-5, abs=1e-6)
    loss.backward()
    assert prediction.grad is not None
    gradients = prediction.grad[0, 0].numpy()
    assert (gradients[~labelled] == 0).all()
    np.testing.assert_allclose(gradients[labelled], [2 * (a - b) / len(pairs) for a, b in pairs], rtol=1e-5, atol=1e-6)
