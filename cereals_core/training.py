"""Training to convergence on partly labelled images: a few images a step, unlabelled cells masked in the loss.

A step's loss is the mean over its images of each image's own mean over its labelled cells: images weigh alike, however
much of them is labelled. Images of one size go through the network as one tensor, others in turn, and gradients add up.

By cropping, only those parts of an image are computed that its labelled cells depend on. Each crop adds its share to
the gradient of the one step, so that loss and gradient are those of masking but for rounding: sums are taken in another
order, and convolutions of another shape may be computed in another way.

Everything random in an epoch comes from that epoch's own stream, so a run that is stopped after any epoch and restored
goes on to the same weights, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cereals_core.cropping import Crop, crops
from cereals_core.errors import CerealsError
from cereals_core.grid import VOID
from cereals_core.models.base import Network
from cereals_core.models.dropout import draw_masks
from cereals_core.settings import Training
from cereals_core.shapes import Bool, Float, Float32, UInt8

Image = UInt8[np.ndarray, "_ _ 3"] | UInt8[Tensor, "_ _ 3"]
"""RGB, in main memory or where the network is."""
Target = UInt8[np.ndarray, "_ _"] | Float32[np.ndarray, "_ _"]
"""At stride 8: labels, or clicks, NaN where nothing is labelled."""
Sample = tuple[Image, Target]
"""Image and its target."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean over the labelled cells of a network's output and a target, each of one image or crop."""
InOrder = Callable[[Iterable[int]], Iterable[Sample]]
"""Reader of the samples at these indices, in this order."""


class DivergedError(CerealsError, ArithmeticError):
    """A loss that is no longer finite."""


def segmentation_loss(logits: Float[Tensor, "b classes h w"], labels: UInt8[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Average the cross entropy over the labelled cells, in nats; VOID is ignored."""
    return functional.cross_entropy(_at_least_float32(logits), labels.long(), ignore_index=VOID)


def cost_loss(prediction: Float[Tensor, "b 1 h w"], clicks: Float32[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Average the squared error over the labelled cells; `clicks` is NaN where nothing is labelled."""
    labelled = ~torch.isnan(clicks)
    return functional.mse_loss(_at_least_float32(prediction[:, 0])[labelled], clicks[labelled])


def _at_least_float32(output: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return output.to(torch.promote_types(output.dtype, torch.float32))


@dataclass(frozen=True)
class Epoch:
    """One line of a training's history: steps of the optimiser so far, and the mean of the losses of its images."""

    epoch: int
    steps: int
    loss: float


class Part(NamedTuple):
    """A part of an image that is computed by itself in a step: a crop, or all of it."""

    image: Image
    target: Target
    """With the cells that count here alone."""
    masks: list[Tensor]
    share: float
    """Weight of the part in the image's loss."""


class Trainer:
    """Training by Adam until the epoch's loss has not improved for `patience_epochs`; it keeps the best weights.

    `rng(epoch)` gives the random stream of an epoch: order of samples, then the dropout masks, image by image.
    """

    def __init__(
        self,
        model: Network,
        loss: Loss,
        settings: Training,
        dropout: float,
        rng: Callable[[int], np.random.Generator],
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = next(model.parameters()).device
        self.loss, self.settings, self.dropout, self.rng, self.precision = loss, settings, dropout, rng, precision
        self.optimiser = torch.optim.Adam(
            model.parameters(), lr=settings.learning_rate, betas=settings.betas, fused=True
        )
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}

    @property
    def best(self) -> Epoch:
        """The epoch of the lowest loss so far, the earlier one of equals."""
        return min(self.history, key=lambda epoch: epoch.loss)

    @property
    def steps(self) -> int:
        """Steps of the optimiser so far."""
        return self.history[-1].steps if self.history else 0

    @property
    def finished(self) -> bool:
        """Whether the loss has stopped improving, or the step limit is reached."""
        if not self.history:
            return False
        last = self.history[-1]
        waited = last.epoch - self.best.epoch
        return waited >= self.settings.patience_epochs or last.steps >= self.settings.max_steps

    def run_epoch(self, samples: Sequence[Sample], in_order: InOrder | None = None) -> Epoch:
        """Take steps on all samples, in random order, and record the epoch.

        `in_order` may know a faster way to the samples than one after the other. The last step of an epoch takes the
        images that are left.
        """
        number = len(self.history)
        rng = self.rng(number)
        order = rng.permutation(len(samples))
        taken = map(samples.__getitem__, order) if in_order is None else in_order(order)
        losses = [self._step(batch, rng) for batch in _batches(taken, self.settings.batch_images)]
        steps = len(losses) + self.steps
        epoch = Epoch(number, steps, float(torch.cat(losses).double().mean()))
        if not np.isfinite(epoch.loss):
            raise DivergedError(f"the loss of epoch {number} is {epoch.loss}: lower training.learning_rate")
        self.history.append(epoch)
        if self.best is epoch:
            self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return epoch

    def _step(self, batch: Sequence[Sample], rng: np.random.Generator) -> Float[Tensor, "images"]:
        """Take one step of the optimiser; return the loss of each image."""
        parts = [self._parts(sample, rng) for sample in batch]
        losses: list[list[Tensor]] = [[] for _ in batch]
        self.optimiser.zero_grad()
        for places in _of_one_size(parts):
            together = [parts[image][part] for image, part in places]
            for (image, _), loss in zip(places, self._add_gradient(together, len(batch)), strict=True):
                losses[image].append(loss)
        self.optimiser.step()
        return torch.stack([torch.stack(each).sum() for each in losses])

    def _parts(self, sample: Sample, rng: np.random.Generator) -> list[Part]:
        """Return what is computed of an image; draws its masks."""
        image, target = sample
        height, width = image.shape[:2]
        masks = draw_masks(rng, self.model.mask_shapes(height, width), self.dropout, self.device)
        context_px = self.model.context_px if self.settings.method == "cropping" else None
        found = crops(_labelled(target), height, width, context_px, self.model.crop_grid_px)
        return [self._part(crop, sample, masks) for crop in found]

    def _part(self, crop: Crop, sample: Sample, masks: list[Tensor]) -> Part:
        image, target = sample
        counted = np.where(crop.cells, target[crop.box.cell_slices], _unlabelled(target))
        rows, columns = crop.slices_at(self.model.mask_stride_px)
        return Part(image[crop.box.slices], counted, [mask[..., rows, columns] for mask in masks], crop.share)

    def _add_gradient(self, parts: Sequence[Part], batch_images: int) -> list[Float[Tensor, ""]]:
        """Add the gradient of parts of one size to a step of so many images; return their shares of the losses."""
        images = self._tensor([part.image for part in parts]).permute(0, 3, 1, 2)
        targets = self._tensor([part.target for part in parts])
        masks = [_joined(each) for each in zip(*(part.masks for part in parts), strict=True)]
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images, masks)
        each_output = output.split(1) if len(parts) > 1 else [output]
        pairs = zip(each_output, targets.split(1), parts, strict=True)
        losses = [self.loss(output, target) * part.share for output, target, part in pairs]
        torch.autograd.backward(losses, [torch.full_like(loss, 1 / batch_images) for loss in losses])
        return [loss.detach() for loss in losses]

    def _tensor(self, arrays: Sequence[Image] | Sequence[Target]) -> Tensor:
        """Stack arrays of one shape to one tensor where the network is."""
        if len({isinstance(array, Tensor) for array in arrays}) > 1:  # some of them are there
            arrays = [torch.as_tensor(array).to(self.device, non_blocking=True) for array in arrays]
        return _joined([torch.as_tensor(array)[None] for array in arrays]).to(self.device, non_blocking=True)

    def state(self) -> dict[str, Any]:
        """Return everything needed to go on after this epoch, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best_weights": self.best_weights,
            "history": [(epoch.epoch, epoch.steps, epoch.loss) for epoch in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned, to go on from there."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_weights = state["best_weights"]
        self.history = [Epoch(*values) for values in state["history"]]


def _labelled(target: Target) -> Bool[np.ndarray, "rows columns"]:
    """Tell which cells the loss counts."""
    return target != VOID if target.dtype == np.uint8 else ~np.isnan(target)


def _unlabelled(target: Target) -> np.generic:
    """Return what a target of this kind holds where the loss counts nothing."""
    return np.uint8(VOID) if target.dtype == np.uint8 else np.float32(np.nan)


def _batches(samples: Iterable[Sample], size: int) -> Iterator[list[Sample]]:
    """Yield so many samples at a time; the last batch may be smaller."""
    remaining = iter(samples)
    while batch := list(islice(remaining, size)):
        yield batch


def _of_one_size(parts: Sequence[Sequence[Part]]) -> Iterable[list[tuple[int, int]]]:
    """Group (image, part) of parts that go through the network together: of one size, and of different images."""
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for image, of_image in enumerate(parts):
        for index, part in enumerate(of_image):
            groups.setdefault((*part.image.shape, index), []).append((image, index))
    return groups.values()


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the first axis; a single one is not copied."""
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]
