"""Training on partly labelled images: to convergence, or so many steps; unlabelled cells are masked in the loss.

What a step computes, and how images and cells weigh, `batches` and `windows` say.

Everything random in an epoch comes from that epoch's own stream, so a run that is stopped after any epoch and restored
goes on to the same weights, bit for bit.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from cereals_core.batches import Batches, ImageBatches, InOrder, Part, Sample
from cereals_core.errors import CerealsError
from cereals_core.grid import VOID
from cereals_core.models.base import Network
from cereals_core.models.decoder import Features
from cereals_core.network_settings import Training
from cereals_core.shapes import Float, Float32, UInt8
from cereals_core.windows import WindowBatches

Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean over the labelled cells of a network's output and a target, each of one image or crop."""
POLY_POWER = 0.9
"""Power of the polynomial decay of the learning rate, as in DeepLab (Chen et al. 2017)."""


class DivergedError(CerealsError, ArithmeticError):
    """A loss that is no longer finite."""


def segmentation_loss(logits: Float[Tensor, "b classes h w"], labels: UInt8[Tensor, "b h w"]) -> Float[Tensor, ""]:
    """Average the cross entropy over the labelled cells, in nats; VOID is ignored."""
    return functional.cross_entropy(_at_least_float32(logits), labels.long(), ignore_index=VOID)


def weighted_segmentation_loss(weights: Float32[Tensor, "classes"]) -> Loss:
    """Return the loss that counts a cell by the weight of its class: their sum over the number of labelled cells."""
    return partial(_weighted_loss, weights)


def _weighted_loss(
    weights: Float32[Tensor, "classes"], logits: Float[Tensor, "b classes h w"], labels: UInt8[Tensor, "b h w"]
) -> Float[Tensor, ""]:
    total = functional.cross_entropy(
        _at_least_float32(logits), labels.long(), weights.to(logits.device), ignore_index=VOID, reduction="sum"
    )
    return total / (labels != VOID).sum()


def balanced_weights(counts: Sequence[int]) -> Float32[Tensor, "classes"]:
    """Weigh classes by the inverse root of their labelled cells, so that the mean weight of a cell is 1 (our choice).

    A class without a cell weighs as one with a single cell.
    """
    cells = torch.tensor(counts, dtype=torch.float64)
    weights = cells.clamp(min=1).rsqrt()
    return (weights * cells.sum().clamp(min=1) / (weights * cells).sum().clamp(min=1e-12)).float()


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


class Trainer:
    """Training by Adam: until the epoch's loss has not improved for `patience_epochs`, or `settings.steps` steps.

    `rng(epoch)` gives the random stream of an epoch: order of samples, then augmentation and dropout masks, image by
    image. Decoupled weight decay (AdamW, Loshchilov and Hutter 2019) where the settings ask for it.
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
        self.loss, self.settings, self.rng, self.precision = loss, settings, rng, precision
        kind = {"images": ImageBatches, "windows": WindowBatches}[settings.batch]
        self.batches: Batches = kind(model, settings, dropout, self.device)
        options: dict[str, Any] = {"betas": settings.betas, "fused": True}
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.AdamW(self._groups(), weight_decay=settings.weight_decay, **options)
            if settings.weight_decay
            else torch.optim.Adam(self._groups(), **options)
        )
        self.history: list[Epoch] = []
        self.best_weights: dict[str, Tensor] = {}

    def _groups(self) -> list[dict[str, Any]]:
        """Group the weights by their learning rate at the first step, which `initial_lr` keeps."""
        rate, share, weights = self.settings.learning_rate, self.settings.pretrained_rate, [*self.model.parameters()]
        slower = set(self.model.pretrained_part.parameters()) if self.model.is_pretrained and share < 1 else set()
        groups = [(rate, [each for each in weights if each not in slower])]
        if slower:
            groups.append((rate * share, [each for each in weights if each in slower]))
        return [{"params": some, "lr": rate, "initial_lr": rate} for rate, some in groups]

    @property
    def best(self) -> Epoch:
        """The epoch whose weights are kept: of the lowest loss so far, the earlier one of equals; or the last one.

        The last one where the number of steps is set.
        """
        return self.history[-1] if self.settings.steps else min(self.history, key=lambda epoch: epoch.loss)

    @property
    def steps(self) -> int:
        """Steps of the optimiser so far."""
        return self.history[-1].steps if self.history else 0

    @property
    def finished(self) -> bool:
        """Whether the loss has stopped improving, or the step limit is reached."""
        return bool(self.history) and (self.was_cut or self.steps == self.settings.steps or self._has_converged)

    @property
    def was_cut(self) -> bool:
        """Whether `max_steps` ended the training before the loss had stopped improving."""
        return not self.settings.steps and self.steps >= self.settings.max_steps and not self._has_converged

    @property
    def _has_converged(self) -> bool:
        waited = self.history[-1].epoch - self.best.epoch
        return not self.settings.steps and waited >= self.settings.patience_epochs

    def run_epoch(self, samples: Sequence[Sample], in_order: InOrder | None = None) -> Epoch:
        """Take steps on all samples, in random order, and record the epoch.

        The last one ends where the number of steps is reached. `in_order` may know a faster way to the samples than one
        after the other.
        """
        number = len(self.history)
        batches: Iterable[Any] = self.batches.of_epoch(samples, in_order, self.rng(number))
        if self.settings.steps:
            batches = islice(batches, self.settings.steps - self.steps)
        losses: list[Tensor] = []
        for count, batch in enumerate(batches, start=self.steps):
            self._set_learning_rate(count)
            losses.append(self._step(batch))
        epoch = Epoch(number, self.steps + len(losses), float(torch.cat(losses).double().mean()))
        if not np.isfinite(epoch.loss):
            raise DivergedError(f"the loss of epoch {number} is {epoch.loss}: lower training.learning_rate")
        self.history.append(epoch)
        if self.best is epoch and (not self.settings.steps or self.finished):
            self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return epoch

    def _set_learning_rate(self, step: int) -> None:
        """Let the learning rate fall to 0 at the last step, where the settings say so."""
        if self.settings.decay == "poly" and self.settings.steps:
            left = 1 - step / self.settings.steps
            for group in self.optimiser.param_groups:
                group["lr"] = group["initial_lr"] * left**POLY_POWER

    def _step(self, parts: Sequence[Sequence[Part]]) -> Float[Tensor, "images"]:
        """Take one step of the optimiser on the parts of its images; return the loss of each image."""
        losses: list[list[Tensor]] = [[] for _ in parts]
        self.optimiser.zero_grad()
        for places in _of_one_size(parts):
            together = [parts[image][part] for image, part in places]
            for (image, _), loss in zip(places, self._add_gradient(together, len(parts)), strict=True):
                losses[image].append(loss)
        self.optimiser.step()
        return torch.stack([torch.stack(each).sum() for each in losses])

    def _add_gradient(self, parts: Sequence[Part], batch_images: int) -> list[Float[Tensor, ""]]:
        """Add the gradient of parts of one size to a step of so many images; return their shares of the losses."""
        images, targets = self._images(parts), self._tensor([_several(part) for part in parts])
        masks = [_joined(each) for each in zip(*(part.masks for part in parts), strict=True)]
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images, masks)
        counts = [len(_several(part)) for part in parts]
        each_output = output.split(counts) if len(parts) > 1 else [output]
        pairs = zip(each_output, targets.split(counts), parts, strict=True)
        losses = [self.loss(output, target) * part.share for output, target, part in pairs]
        torch.autograd.backward(losses, [torch.full_like(loss, 1 / batch_images) for loss in losses])
        return [loss.detach() for loss in losses]

    def _images(self, parts: Sequence[Part]) -> Any:
        """Bring what the network takes of these parts to it, channels first."""
        if isinstance(parts[0].image, Features):
            fields = zip(*(part.image for part in parts), strict=True)
            return Features(*(None if each[0] is None else _first(self._tensor(each)) for each in fields))
        return _first(self._tensor([part.image[None] for part in parts]))

    def _tensor(self, arrays: Sequence[Any]) -> Tensor:
        """Join arrays along their first axis to one tensor where the network is."""
        if len({isinstance(array, Tensor) for array in arrays}) > 1:  # some of them are there
            arrays = [torch.as_tensor(array).to(self.device, non_blocking=True) for array in arrays]
        return _joined([torch.as_tensor(array) for array in arrays]).to(self.device, non_blocking=True)

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


def _several(part: Part) -> Any:
    """Return the part's target with an axis for its windows; an image or crop is one."""
    return part.target if isinstance(part.image, Features) else part.target[None]


def _of_one_size(parts: Sequence[Sequence[Part]]) -> Iterable[list[tuple[int, int]]]:
    """Group (image, part) of parts that go through the network together: of one size, and of different images."""
    groups: dict[tuple[int, ...], list[tuple[int, int]]] = {}
    for image, of_image in enumerate(parts):
        for index, part in enumerate(of_image):
            groups.setdefault((*_shape(part), index), []).append((image, index))
    return groups.values()


def _shape(part: Part) -> tuple[int, ...]:
    return tuple(part.image.fine.shape if isinstance(part.image, Features) else part.image.shape)


def _first(x: Tensor) -> Tensor:
    """Put the channels, the last axis of four, behind the first."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the first axis; a single one is not copied."""
    return torch.cat(list(tensors)) if len(tensors) > 1 else tensors[0]
