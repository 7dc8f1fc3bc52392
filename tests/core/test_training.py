import copy
import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import FEW
from torch import Tensor

from cereals_core.errors import CerealsError
from cereals_core.grid import VOID, map_shape
from cereals_core.models.dropout import draw_masks
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Training
from cereals_core.seeding import rng
from cereals_core.training import DivergedError, Epoch, Loss, Sample, Trainer, cost_loss, segmentation_loss

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 3


def tiny(outputs: int, seed: int = 0) -> FCN8s:
    model = FCN8s(outputs, 0.02)
    model.initialise(torch.Generator().manual_seed(seed))
    return model


def trainer_of(loss: Loss, dropout: float = 0.5, weights_seed: int = 0, stream_seed: int = 0, **keys: Any) -> Trainer:
    model = tiny(CLASSES if loss is segmentation_loss else 1, weights_seed)
    settings = Training(**{"learning_rate": 1e-3, **keys})
    return Trainer(model, loss, settings, dropout, lambda epoch: rng(stream_seed, epoch))


def samples_for(loss: Loss, count: int = 2) -> list[Sample]:
    """Noise of odd sizes, partly labelled."""
    made = []
    for index in range(count):
        stream = rng(0, "samples", index)
        height, width = 20 + 9 * index, 41 - 7 * index
        image = stream.integers(0, 256, (height, width, 3), np.uint8)
        unlabelled = stream.random(map_shape(height, width)) < 0.3
        if loss is segmentation_loss:
            target = np.where(unlabelled, np.uint8(VOID), stream.integers(0, CLASSES, unlabelled.shape, np.uint8))
        else:
            target = np.where(unlabelled, np.float32(np.nan), stream.random(unlabelled.shape, np.float32))
        made.append((image, target))
    return made


def scripted(values: list[float]) -> Loss:
    """A loss that takes these values, one a step, whatever the output, and whose gradients are not zero."""
    script = itertools.chain(values, itertools.repeat(values[-1]))
    return lambda output, _: output.mean() - output.mean().detach() + next(script)


def weights_of(trainer: Trainer) -> dict[str, Tensor]:
    return copy.deepcopy(trainer.model.state_dict())


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


@pytest.mark.parametrize("loss", [segmentation_loss, cost_loss])
def test_a_step_is_adam_on_the_loss_of_the_masked_pass(loss: Loss) -> None:
    """The first epoch, by hand: permutation, masks and Adam's formula, in this order of draws."""
    samples, trainer = samples_for(loss), trainer_of(loss)
    model = copy.deepcopy(trainer.model)
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()}
    stream, losses = rng(0, 0), []
    for step, index in enumerate(stream.permutation(2), start=1):
        image, target = samples[index]
        pixels = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
        masks = draw_masks(stream, model.mask_shapes(*pixels.shape[-2:]), 0.5)
        value = loss(model(pixels, masks), torch.from_numpy(target)[None])
        losses.append(value.item())
        model.zero_grad()
        value.backward()
        for name, parameter in model.named_parameters():
            gradient = parameter.grad
            assert gradient is not None
            first, second = moments[name]
            first.mul_(0.99).add_(0.01 * gradient)
            second.mul_(0.999).add_(0.001 * gradient**2)
            root = (second / (1 - 0.999**step)).sqrt() + 1e-8
            parameter.data -= 1e-3 * first / (1 - 0.99**step) / root
    epoch = trainer.run_epoch(samples)
    assert (epoch.epoch, epoch.steps) == (0, 2)
    assert epoch.loss == pytest.approx(sum(losses) / 2, rel=1e-5)
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=2e-5, rtol=1e-4)


def test_two_images_are_learnt_by_heart() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 24:] = 255
    labels = np.zeros((4, 6), np.uint8)
    labels[:, 3:] = 1
    samples = [(image, labels), (255 - image, 1 - labels)]
    trainer = trainer_of(segmentation_loss, dropout=0.0, learning_rate=3e-3, betas=(0.9, 0.999))
    losses = [trainer.run_epoch(samples).loss for _ in range(40)]
    assert losses[0] > 0.5
    assert trainer.best.loss < 0.1


def test_clicks_are_learnt_by_heart() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 24:] = 255
    clicks = np.full((4, 6), np.nan, np.float32)
    clicks[:, 3:5], clicks[:, :2] = 4, 1
    trainer = trainer_of(cost_loss, dropout=0.0, learning_rate=3e-3, betas=(0.9, 0.999))
    losses = [trainer.run_epoch([(image, clicks)]).loss for _ in range(60)]
    assert losses[0] > 2
    assert trainer.best.loss < 0.2


@pytest.mark.parametrize(("patience", "losses"), [(1, [3, 2, 2]), (3, [3, 2, 2, 1, 1, 4, 1])])
def test_training_stops_after_so_many_epochs_without_a_lower_loss(patience: int, losses: list[float]) -> None:
    trainer = trainer_of(scripted([*losses, 0]), patience_epochs=patience)
    assert not trainer.finished
    while not trainer.finished:
        trainer.run_epoch(samples_for(cost_loss, 1))
    assert [epoch.loss for epoch in trainer.history] == losses
    assert trainer.best.epoch == len(losses) - 1 - patience


@FEW
@given(st.lists(st.integers(0, 5).map(float), min_size=1, max_size=15), st.integers(1, 5), st.integers(1, 60))
def test_finished_follows_from_the_history(losses: list[float], patience: int, max_steps: int) -> None:
    trainer = trainer_of(cost_loss)
    trainer.settings = Training(patience_epochs=patience, max_steps=max_steps)
    trainer.history = [Epoch(number, 4 * number + 4, loss) for number, loss in enumerate(losses)]
    waited, lowest = 0, math.inf
    for loss in losses:
        waited, lowest = (0, loss) if loss < lowest else (waited + 1, lowest)
    assert trainer.finished == (waited >= patience or 4 * len(losses) >= max_steps)
    assert trainer.best.epoch == losses.index(min(losses))


@pytest.mark.parametrize(("max_steps", "epochs"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_training_stops_at_the_end_of_the_epoch_that_reaches_the_step_limit(max_steps: int, epochs: int) -> None:
    trainer = trainer_of(cost_loss, max_steps=max_steps)
    while not trainer.finished:
        trainer.run_epoch(samples_for(cost_loss))
    assert [epoch.steps for epoch in trainer.history] == [2, 4][:epochs]


def test_the_best_weights_are_those_after_the_first_epoch_of_the_lowest_loss() -> None:
    trainer = trainer_of(scripted([5, 4, 2, 3, 2, 6]))
    after = []
    for _ in range(6):
        trainer.run_epoch(samples_for(cost_loss, 1))
        after.append(weights_of(trainer))
        assert_same(trainer.best_weights, after[trainer.best.epoch])
    assert trainer.best.epoch == 2
    assert not any(torch.equal(a["fc7.weight"], b["fc7.weight"]) for a, b in itertools.pairwise(after))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_with_its_remedy(value: float) -> None:
    trainer = trainer_of(scripted([1.0, value]))
    trainer.run_epoch(samples_for(cost_loss, 1))
    best = copy.deepcopy(trainer.best_weights)
    with pytest.raises(DivergedError, match=rf"epoch 1 is {value}: lower training\.learning_rate") as caught:
        trainer.run_epoch(samples_for(cost_loss, 1))
    assert isinstance(caught.value, CerealsError)
    assert isinstance(caught.value, ArithmeticError)
    assert [epoch.loss for epoch in trainer.history] == [1.0]
    assert_same(trainer.best_weights, best)


def test_a_learning_rate_far_too_high_diverges() -> None:
    trainer = trainer_of(cost_loss, learning_rate=1e30)
    with pytest.raises(DivergedError):
        trainer.run_epoch(samples_for(cost_loss))


def saved_and_loaded(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same_state(first: Trainer, second: Trainer) -> None:
    assert first.history == second.history
    assert_same(first.model.state_dict(), second.model.state_dict())
    assert_same(first.best_weights, second.best_weights)
    moments = [trainer.optimiser.state_dict()["state"] for trainer in (first, second)]
    for index in moments[0]:
        assert_same(moments[0][index], moments[1][index])


@pytest.mark.parametrize("dropout", [0.5, 0.2])
@pytest.mark.parametrize("loss", [segmentation_loss, cost_loss])
def test_a_run_restored_after_any_epoch_equals_the_undisturbed_one_bit_for_bit(loss: Loss, dropout: float) -> None:
    epochs, samples = 4, samples_for(loss, 3)
    undisturbed = trainer_of(loss, dropout)
    states = []
    for _ in range(epochs):
        undisturbed.run_epoch(samples)
        states.append(saved_and_loaded(undisturbed.state()))
    for stopped_after, state in enumerate(states, start=1):
        restored = trainer_of(loss, dropout, weights_seed=99)
        restored.restore(state)
        assert restored.best == restored.history[restored.best.epoch]
        for _ in range(epochs - stopped_after):
            restored.run_epoch(samples)
        assert_same_state(undisturbed, restored)


def test_a_run_interrupted_after_every_epoch_stops_where_the_undisturbed_one_does() -> None:
    samples = samples_for(segmentation_loss)
    undisturbed = trainer_of(segmentation_loss, patience_epochs=2, max_steps=14)
    while not undisturbed.finished:
        undisturbed.run_epoch(samples)
    interrupted = trainer_of(segmentation_loss, patience_epochs=2, max_steps=14)
    while not interrupted.finished:
        interrupted.run_epoch(samples)
        state = saved_and_loaded(interrupted.state())
        interrupted = trainer_of(segmentation_loss, weights_seed=5, patience_epochs=2, max_steps=14)
        interrupted.restore(state)
    assert_same_state(undisturbed, interrupted)


def test_an_epoch_takes_every_sample_once_in_the_order_of_its_own_stream() -> None:
    """Each sample's clicks are its number."""
    image, cells = samples_for(cost_loss, 1)[0]
    samples: list[Sample] = [(image, np.full_like(cells, number)) for number in range(6)]
    taken: list[int] = []

    def remember(prediction: Tensor, clicks: Tensor) -> Tensor:
        taken.append(int(clicks[0, 0, 0]))
        return cost_loss(prediction, clicks)

    trainer = trainer_of(remember, stream_seed=8)
    for epoch in range(3):
        trainer.run_epoch(samples)
        assert taken[-6:] == rng(8, epoch).permutation(6).tolist()
    assert len(taken) == 18


def test_the_stream_of_an_epoch_is_asked_for_by_its_number_alone() -> None:
    asked: list[int] = []

    def remember(epoch: int) -> np.random.Generator:
        asked.append(epoch)
        return rng(0, epoch)

    model, settings, samples = tiny(1), Training(), samples_for(cost_loss)
    first = Trainer(model, cost_loss, settings, 0.5, remember)
    for _ in range(2):
        first.run_epoch(samples)
    second = Trainer(tiny(1, 1), cost_loss, settings, 0.5, remember)
    second.restore(saved_and_loaded(first.state()))
    second.run_epoch(samples)
    assert asked == [0, 1, 2]


def test_global_random_state_is_neither_read_nor_moved() -> None:
    runs = []
    for seed in (1, 2):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            trainer = trainer_of(segmentation_loss)
            torch.set_rng_state(before)
            trainer.run_epoch(samples_for(segmentation_loss))
            assert torch.equal(torch.get_rng_state(), before)
            runs.append(weights_of(trainer))
    assert_same(*runs)


def test_bfloat16_trains_float32_weights() -> None:
    model = tiny(CLASSES)
    settings = Training(learning_rate=1e-3)
    trainer = Trainer(model, segmentation_loss, settings, 0.5, lambda epoch: rng(0, epoch), torch.bfloat16)
    low = trainer.run_epoch(samples_for(segmentation_loss)).loss
    full = trainer_of(segmentation_loss).run_epoch(samples_for(segmentation_loss)).loss
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert low == pytest.approx(full, rel=0.05)
    assert low != full
