import copy
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from cereals_core.cropping import crops
from cereals_core.grid import VOID, Box, map_shape
from cereals_core.models.dropout import draw_masks
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Training
from cereals_core.seeding import rng
from cereals_core.training import Loss, Sample, Trainer, cost_loss, segmentation_loss

pytestmark = pytest.mark.usefixtures("one_thread")

CLASSES = 3
WIDE, TALL, SMALL = (93, 581), (581, 93), (29, 34)
SAMPLES = [
    (WIDE, [Box(0, 0, 40, 40), Box(56, 544, 37, 37)]),
    (TALL, [Box(544, 56, 37, 37)]),
    (WIDE, [Box(0, 0, 40, 32), Box(56, 544, 32, 37)]),
    (SMALL, [Box(0, 0, 16, 24)]),
    (WIDE, [Box(32, 264, 32, 40)]),
]
"""Image size and labelled regions; by cropping the first and third give crops of the same sizes."""
LOSSES = pytest.mark.parametrize("loss", [segmentation_loss, cost_loss])
Method = Literal["masking", "cropping"]
METHODS = pytest.mark.parametrize("method", ["masking", "cropping"])


def samples_for(loss: Loss) -> list[Sample]:
    made = []
    for index, (size, regions) in enumerate(SAMPLES):
        stream, regions_there = rng(0, "samples", index), np.zeros(map_shape(*size), bool)
        for region in regions:
            regions_there[region.cell_slices] = True
        labelled = regions_there & (stream.random(regions_there.shape) < 0.8)
        image = stream.integers(0, 256, (*size, 3), np.uint8)
        if loss is segmentation_loss:
            target = np.where(labelled, stream.integers(0, CLASSES, labelled.shape, np.uint8), np.uint8(VOID))
        else:
            target = np.where(labelled, stream.random(labelled.shape, np.float32), np.float32(np.nan))
        made.append((image, target))
    return made


def model_for(loss: Loss, dtype: torch.dtype = torch.float32) -> FCN8s:
    model = FCN8s(CLASSES if loss is segmentation_loss else 1, 0.02)
    model.initialise(torch.Generator().manual_seed(0))
    return model.to(dtype)


def trainer_of(loss: Loss, method: Method = "masking", dtype: torch.dtype = torch.float32, **keys: int) -> Trainer:
    settings = Training(learning_rate=1e-3, method=method, **keys)
    return Trainer(model_for(loss, dtype), loss, settings, 0.5, lambda epoch: rng(0, epoch))


def gradients(model: FCN8s) -> dict[str, Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def gradient_of_one(model: FCN8s, loss: Loss, sample: Sample, masks: list[Tensor]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one whole image."""
    image, target = sample
    model.zero_grad()
    value = loss(model(torch.from_numpy(image)[None].permute(0, 3, 1, 2), masks), torch.from_numpy(target)[None])
    value.backward()
    return value.item(), gradients(model)


@METHODS
@LOSSES
def test_the_gradient_of_a_batch_is_the_mean_of_those_of_its_images(loss: Loss, method: Method) -> None:
    samples, model, stream = samples_for(loss), model_for(loss, torch.float64), rng(0, 0)
    alone = []
    for index in stream.permutation(len(samples)):
        masks = draw_masks(stream, model.mask_shapes(*samples[index][0].shape[:2]), 0.5)
        alone.append(gradient_of_one(model, loss, samples[index], masks))
    trainer = trainer_of(loss, method, torch.float64, batch_images=len(samples))
    epoch = trainer.run_epoch(samples)
    assert epoch.steps == 1
    assert epoch.loss == pytest.approx(np.mean([value for value, _ in alone]), rel=1e-12)
    together = gradients(trainer.model)  # type: ignore[arg-type]
    for name, gradient in together.items():
        expected = torch.stack([each[name] for _, each in alone]).mean(0)
        scale = expected.abs().max().item()
        assert scale > 0
        torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=1e-12 * scale)


@pytest.mark.parametrize(
    ("method", "computed"),
    [
        ("masking", {(3, *WIDE), (1, *TALL), (1, *SMALL)}),
        ("cropping", {(2, 93, 256), (2, 93, 261), (1, 261, 93), (1, *SMALL), (1, 93, 512)}),
    ],
)
def test_what_is_of_one_size_goes_through_the_network_together(
    method: Method, computed: set[tuple[int, int, int]]
) -> None:
    trainer, seen = trainer_of(cost_loss, method, batch_images=5), []
    trainer.model.register_forward_pre_hook(lambda _, given: seen.append((len(given[0]), *given[0].shape[-2:])))
    trainer.run_epoch(samples_for(cost_loss))
    assert len(seen) == len(computed)
    assert set(seen) == computed


def test_crops_of_one_image_never_share_a_tensor() -> None:
    """So that a step on one image is what it is in any batch of other sizes, and its memory that of the image."""
    size = (93, 581)
    labels = np.full(map_shape(*size), VOID, np.uint8)
    labels[:, :2], labels[:, -2:] = 0, 1
    sample = (np.zeros((*size, 3), np.uint8), labels)
    trainer, seen = trainer_of(segmentation_loss, "cropping"), []
    trainer.model.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    trainer.run_epoch([sample])
    assert seen == [1, 1]


@METHODS
@LOSSES
def test_one_image_a_step_comes_to_the_weights_of_a_plain_loop_bit_for_bit(loss: Loss, method: Method) -> None:
    samples, trainer = samples_for(loss), trainer_of(loss, method)
    model = model_for(loss).to(memory_format=torch.channels_last)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.99, 0.999), fused=True)
    for number in range(2):
        stream, losses = rng(0, number), []
        for index in stream.permutation(len(samples)):
            image, target = samples[index]
            masks = draw_masks(stream, model.mask_shapes(*image.shape[:2]), 0.5)
            optimiser.zero_grad()
            losses.append(_add_gradient_in_turn(model, loss, method, image, target, masks))
            optimiser.step()
        assert trainer.run_epoch(samples).loss == torch.stack(losses).double().mean().item()
    expected = model.state_dict()
    assert [name for name, value in trainer.model.state_dict().items() if not torch.equal(value, expected[name])] == []


def _add_gradient_in_turn(
    model: FCN8s, loss: Loss, method: Method, image: np.ndarray, target: np.ndarray, masks: list[Tensor]
) -> Tensor:
    labelled = target != VOID if loss is segmentation_loss else ~np.isnan(target)
    parts = []
    for box, cells, share in crops(labelled, *image.shape[:2], 216 if method == "cropping" else None, 32):
        pixels = torch.from_numpy(image[box.slices])[None].permute(0, 3, 1, 2)
        counted = target[box.cell_slices].copy()
        counted[~cells] = VOID if loss is segmentation_loss else np.nan
        rows, columns = (slice(box[axis] // 32, -(-(box[axis] + box[axis + 2]) // 32)) for axis in (0, 1))
        output = model(pixels, [mask[..., rows, columns] for mask in masks])
        value = loss(output, torch.from_numpy(counted)[None]) * share
        value.backward()
        parts.append(value.detach())
    return torch.stack(parts).sum()


def test_the_loss_of_an_epoch_is_the_mean_over_images_and_the_last_batch_may_be_smaller() -> None:
    script = iter([1.0, 2.0, 9.0] * 2)
    trainer = trainer_of(lambda output, _: output.mean() - output.mean().detach() + next(script), batch_images=2)
    samples = samples_for(cost_loss)[:3]
    assert [trainer.run_epoch(samples).loss for _ in range(2)] == [4.0, 4.0]
    assert [epoch.steps for epoch in trainer.history] == [2, 4]


@pytest.mark.parametrize(("batch_images", "steps"), [(1, [5]), (2, [3, 6]), (4, [2, 4]), (9, [1, 2, 3, 4])])
def test_limits_count_steps_of_the_optimiser(batch_images: int, steps: list[int]) -> None:
    trainer = trainer_of(cost_loss, batch_images=batch_images, max_steps=4)
    while not trainer.finished:
        trainer.run_epoch(samples_for(cost_loss))
    assert [epoch.steps for epoch in trainer.history] == steps


@METHODS
def test_a_run_in_batches_that_is_restored_equals_the_undisturbed_one_bit_for_bit(method: Method) -> None:
    undisturbed, restored = (trainer_of(segmentation_loss, method, batch_images=2) for _ in range(2))
    samples = samples_for(segmentation_loss)
    undisturbed.run_epoch(samples)
    restored.restore(copy.deepcopy(undisturbed.state()))
    for trainer in (undisturbed, restored):
        trainer.run_epoch(samples)
    assert undisturbed.history == restored.history
    weights = [trainer.model.state_dict() for trainer in (undisturbed, restored)]
    assert [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])] == []


def test_samples_may_come_from_a_reader_that_knows_the_order() -> None:
    samples, asked = samples_for(cost_loss), []

    def in_order(indices: np.ndarray) -> list[Sample]:
        asked.extend(indices.tolist())
        return [samples[index] for index in indices]

    read, looked_up = (trainer_of(cost_loss, batch_images=2) for _ in range(2))
    assert read.run_epoch(samples, in_order) == looked_up.run_epoch(samples)  # type: ignore[arg-type]
    assert asked == rng(0, 0).permutation(5).tolist()


@METHODS
@pytest.mark.parametrize("batch_images", [1, 5])
def test_images_where_the_network_is_give_the_same_weights_bit_for_bit(method: Method, batch_images: int) -> None:
    samples, weights = samples_for(segmentation_loss), []
    some_there = [(torch.from_numpy(image), target) for image, target in samples[:3]]
    for given in (samples, [*some_there, *samples[3:]]):
        trainer = trainer_of(segmentation_loss, method, batch_images=batch_images)
        trainer.run_epoch(given)
        weights.append(trainer.best_weights)
    assert [name for name, value in weights[0].items() if not torch.equal(value, weights[1][name])] == []
