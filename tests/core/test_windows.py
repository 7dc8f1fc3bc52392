import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW

from cereals_core.augmentation import changed_colours, flipped, scaled_crop
from cereals_core.batches import Target, labelled
from cereals_core.grid import VOID, Box, map_shape
from cereals_core.models.base import Network
from cereals_core.models.decoder import Decoder, Features
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Training
from cereals_core.seeding import rng
from cereals_core.training import (
    Loss,
    Trainer,
    balanced_weights,
    cost_loss,
    segmentation_loss,
    weighted_segmentation_loss,
)
from cereals_core.windows import features_around, inside_of, window_of, windows_of

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES, CHANNELS = 3, (3, 4, 5)
LOSSES = pytest.mark.parametrize("loss", [segmentation_loss, cost_loss])
Maps = tuple[np.ndarray, ...]


def target_of(loss: Loss, height: int, width: int, regions: list[Box] | None = None) -> Target:
    """Noise, in these regions or everywhere, with some cells of void in it."""
    stream, shape = rng(0, "target", height, width), map_shape(height, width)
    there = np.zeros(shape, bool) if regions else np.ones(shape, bool)
    for region in regions or []:
        there[region.cell_slices] = True
    there &= stream.random(shape) < 0.8
    if loss is segmentation_loss:
        return np.where(there, stream.integers(0, CLASSES, shape, np.uint8), np.uint8(VOID))
    return np.where(there, stream.random(shape, np.float32), np.float32(np.nan))


def maps_of(height: int, width: int) -> Maps:
    stream = rng(0, "maps", height, width)
    sizes = [tuple(-(-side // stride) for side in (height, width)) for stride in (8, 16, 32)]
    return tuple(stream.normal(size=(*size, c)).astype(np.float16) for size, c in zip(sizes, CHANNELS, strict=True))


class InMemory(list[Any]):
    """Samples of features, as trainings are given them."""

    def windows_in_order(self, batches: Any, cells: int) -> Any:
        for batch in batches:
            places = [(self[index], int(row), int(column)) for index, row, column in batch]
            found = [features_around(maps, row, column, cells) for (maps, _), row, column in places]
            inside = [inside_of(target.shape, row, column, cells) for (_, target), row, column in places]
            targets = [window_of(target, row, column, cells) for (_, target), row, column in places]
            yield Features(*map(np.stack, zip(*found, strict=True)), np.stack(inside)), np.stack(targets)


def decoder_of(loss: Loss, dtype: torch.dtype = torch.float64) -> Decoder:
    model = Decoder(CHANNELS, CLASSES if loss is segmentation_loss else 1)
    model.initialise(torch.Generator().manual_seed(0))
    return model.to(dtype)


def tiny_fcn8s(loss: Loss) -> FCN8s:
    model = FCN8s(CLASSES if loss is segmentation_loss else 1, 0.02)
    model.initialise(torch.Generator().manual_seed(0))
    return model.double()


def gradients(model: Network, loss: Loss, samples: Any, **keys: Any) -> dict[str, torch.Tensor]:
    """Gradient of one step on everything, summed over the steps of an epoch."""
    model = copy.deepcopy(model)
    trainer = Trainer(model, loss, Training(learning_rate=1e-30, **keys), 0.0, lambda epoch: rng(0, epoch))
    total = {name: torch.zeros_like(each) for name, each in model.named_parameters()}
    add = trainer.optimiser.step

    def step(*args: Any) -> Any:
        for name, each in model.named_parameters():
            assert each.grad is not None
            total[name] += each.grad
        return add(*args)

    trainer.optimiser.step = step  # type: ignore[method-assign]
    trainer.run_epoch(samples)
    return {name: each / trainer.steps for name, each in total.items()}


def assert_close(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], rtol: float) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(value, second[name], rtol=rtol, atol=rtol * float(value.abs().max()))


@LOSSES
@pytest.mark.parametrize("size", [(64, 96), (72, 100), (40, 40), (9, 130)])
@pytest.mark.parametrize("window_px", [32, 64])
@pytest.mark.parametrize("batch_windows", [1, 3, 100])
def test_windows_of_features_give_the_gradient_of_the_whole_image(
    loss: Loss, size: tuple[int, int], window_px: int, batch_windows: int
) -> None:
    samples, model = InMemory([(maps_of(*size), target_of(loss, *size))]), decoder_of(loss)
    whole = gradients(model, loss, samples)
    windows = windows_of([samples[0][1]], window_px // 8)
    keys: dict[str, Any] = {"batch": "windows", "window_px": window_px, "batch_windows": batch_windows}
    found = gradients(model, loss, samples, **keys)
    steps = math.ceil(len(windows.places) / batch_windows)
    each = len(windows.places) / min(batch_windows, len(windows.places))
    assert_close({name: value * each / steps for name, value in whole.items()}, found, rtol=1e-5)


@LOSSES
@pytest.mark.parametrize("size", [(96, 600), (93, 581)])
def test_windows_of_images_give_the_gradient_of_the_whole_image(loss: Loss, size: tuple[int, int]) -> None:
    """With the network's receptive field around them, by crops that are smaller than the image."""
    image = rng(0, "image").integers(0, 256, (*size, 3), np.uint8)
    samples = [(image, target_of(loss, *size, [Box(0, 0, 40, 40), Box(56, 544, 32, 32)]))]
    model = tiny_fcn8s(loss)
    keys: dict[str, Any] = {"batch": "windows", "batch_windows": 100}
    assert_close(gradients(model, loss, samples), gradients(model, loss, samples, **keys), rtol=1e-5)


def test_float16_features_from_disk_bound_the_gradient() -> None:
    """Rounding features to float16 changes the gradient by less than a hundredth of its largest part."""
    exact = InMemory(
        [(tuple(each.astype(np.float64) + 1e-5 for each in maps_of(96, 96)), target_of(cost_loss, 96, 96))]
    )
    rounded = InMemory([(tuple(each.astype(np.float16) for each in exact[0][0]), exact[0][1])])
    model = decoder_of(cost_loss)
    first, second = (gradients(model, cost_loss, samples) for samples in (exact, rounded))
    for name, value in first.items():
        assert (value - second[name]).abs().max() < 0.01 * value.abs().max()
        assert not torch.equal(value, second[name])


@FEW
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_windows_cover_every_labelled_cell_once(rows: int, columns: int, seed: int) -> None:
    stream = np.random.default_rng(seed)
    target = np.where(stream.random((rows, columns)) < 0.02, np.uint8(1), np.uint8(VOID))
    found = windows_of([target, target], 4)
    counted = np.zeros((2, rows, columns), int)
    for index, row, column in found.places:
        assert row % 4 == column % 4 == 0
        assert labelled(target[row : row + 4, column : column + 4]).any()
        counted[index, row : row + 4, column : column + 4] += 1
    assert (counted <= 1).all()
    assert (counted[:, labelled(target)] == 1).all()
    assert found.mean_cells * max(len(found.places), 1) == pytest.approx(2 * labelled(target).sum())


def test_features_around_a_window_in_the_middle_and_at_a_corner() -> None:
    maps = tuple(np.arange(n * n).reshape(n, n, 1).astype(np.float16) for n in (16, 8, 4))
    fine, middle, coarse = features_around(maps, 4, 8, 4)
    np.testing.assert_array_equal(fine[..., 0], maps[0][3:9, 7:13, 0])
    np.testing.assert_array_equal(middle[..., 0], maps[1][1:5, 3:7, 0])
    np.testing.assert_array_equal(coarse[..., 0], maps[2][0:3, 1:4, 0])
    corner = features_around(maps, 0, 12, 4)[0][..., 0]
    np.testing.assert_array_equal(corner[:, -1], corner[:, -2])
    np.testing.assert_array_equal(corner[0], corner[1])
    inside = inside_of((16, 16), 0, 12, 4)
    assert inside.sum() == 25
    assert not inside[0].any()
    assert not inside[:, -1].any()


def practical(**keys: Any) -> Training:
    given: dict[str, Any] = {
        "batch": "windows",
        "batch_windows": 4,
        "steps": 7,
        "decay": "poly",
        "weight_decay": 0.01,
        "learning_rate": 1e-2,
        "augment": ("flip",),
    }
    return Training(**(given | keys))


@LOSSES
def test_so_many_steps_are_taken_whatever_is_labelled_and_the_last_weights_are_kept(loss: Loss) -> None:
    for regions in ([Box(0, 0, 32, 32)], [Box(0, 0, 96, 96)], None):
        samples = InMemory([(maps_of(96, 96), target_of(loss, 96, 96, regions))])
        trainer = Trainer(decoder_of(loss), loss, practical(), 0.3, lambda epoch: rng(0, epoch))
        while not trainer.finished:
            trainer.run_epoch(samples)
        assert trainer.steps == 7
        assert not trainer.was_cut
        assert all(torch.equal(value, trainer.best_weights[name]) for name, value in trainer.model.state_dict().items())


def test_the_learning_rate_falls_to_zero_as_a_power() -> None:
    samples = InMemory([(maps_of(96, 96), target_of(cost_loss, 96, 96))])
    trainer, seen = Trainer(decoder_of(cost_loss), cost_loss, practical(), 0.3, lambda epoch: rng(0, epoch)), []
    step = trainer.optimiser.step
    trainer.optimiser.step = lambda *args: (seen.append(trainer.optimiser.param_groups[0]["lr"]), step(*args))[1]  # type: ignore[method-assign]
    while not trainer.finished:
        trainer.run_epoch(samples)
    assert seen == pytest.approx([1e-2 * (1 - index / 7) ** 0.9 for index in range(7)])


def test_a_run_restored_after_any_epoch_goes_on_bit_for_bit() -> None:
    samples = InMemory([(maps_of(96, 96), target_of(segmentation_loss, 96, 96))])

    def made() -> Trainer:
        return Trainer(decoder_of(segmentation_loss), segmentation_loss, practical(), 0.3, lambda epoch: rng(0, epoch))

    undisturbed, passed_on = made(), made()
    while not undisturbed.finished:
        undisturbed.run_epoch(samples)
    while not passed_on.finished:
        passed_on.run_epoch(samples)
        state, passed_on = passed_on.state(), made()
        passed_on.restore(copy.deepcopy(state))
    assert len(undisturbed.history) > 1
    assert passed_on.history == undisturbed.history
    assert all(torch.equal(value, undisturbed.best_weights[name]) for name, value in passed_on.best_weights.items())


def test_classes_weigh_by_the_inverse_root_of_their_cells() -> None:
    weights = balanced_weights([100, 25, 0])
    assert (weights[1] / weights[0]).item() == pytest.approx(2)
    assert (weights[2] / weights[0]).item() == pytest.approx(10)
    assert (100 * weights[0] + 25 * weights[1]).item() == pytest.approx(125)
    logits, labels = torch.zeros(1, 3, 1, 4), torch.tensor([[[0, 1, 1, VOID]]], dtype=torch.uint8)
    expected = math.log(3) * (weights[0] + 2 * weights[1]) / 3
    assert weighted_segmentation_loss(weights)(logits, labels).item() == pytest.approx(expected.item())
    assert weighted_segmentation_loss(torch.ones(3))(logits, labels).item() == pytest.approx(
        segmentation_loss(logits, labels).item()
    )


def test_mirroring_twice_gives_the_sample_again_but_for_a_part_of_a_cell() -> None:
    image, target = rng(0, "image").integers(0, 256, (24, 43, 3), np.uint8), target_of(segmentation_loss, 24, 43)
    once = flipped(image, target)
    assert once[0].shape == (24, 40, 3)
    np.testing.assert_array_equal(once[0][:, 0], image[:, 39])
    np.testing.assert_array_equal(once[1][:, 0], target[:, 4])
    twice = flipped(*once)
    np.testing.assert_array_equal(twice[0], image[:, :40])
    np.testing.assert_array_equal(twice[1], target[:, :5])


def test_a_scaled_crop_shows_what_its_labels_say() -> None:
    """Each cell of the picture is painted by its label, so that crops tell whether both went the same way."""
    target = rng(0, "t").integers(0, 2, (12, 16), np.uint8)
    image = np.repeat(np.repeat(target[..., None] * 200, 8, 0), 8, 1).repeat(3, 2).astype(np.uint8)
    agreed, counted = 0, 0
    for seed in range(40):
        stream, centre = rng(seed, "crop"), np.array([5.5, 7.5])
        pixels, cells = scaled_crop(image, target, centre, 4, 2, stream, np.uint8(VOID))
        assert pixels.shape == (64, 64, 3)
        assert cells.shape == (8, 8)
        assert (cells[:2] == VOID).all()
        assert (cells[:, 6:] == VOID).all()
        for row, column in np.argwhere(cells != VOID):
            middle = pixels[8 * row + 3 : 8 * row + 5, 8 * column + 3 : 8 * column + 5, 0].mean()
            if not 20 < middle < 180:  # the middle lies on no edge between cells of the source
                agreed += (middle > 100) == (cells[row, column] == 1)
                counted += 1
    assert counted > 300
    assert agreed == counted


def test_colours_change_and_nothing_else() -> None:
    image = rng(0, "image").integers(60, 190, (16, 16, 3), np.uint8)
    one, again, other = (changed_colours(image, rng(seed, "colours")) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert np.corrcoef(one.ravel(), image.ravel())[0, 1] > 0.8
