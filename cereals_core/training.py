"""Training to convergence on partly labelled images: one image a step, unlabelled cells masked in the loss.

By cropping, only those parts of an image are computed that its labelled cells depend on. Each crop adds its share to
the gradient of the one step, so that loss and gradient are those of masking but for rounding: sums are taken in another
order, and convolutions of another shape may be computed in another way.

Everything random in an epoch comes from that epoch's own stream, so a run that is stopped after any epoch and restored
goes on to the same weights, bit for bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

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

Sample = tuple[np.ndarray, np.ndarray]
"""Image uint8 (H, W, 3) and its target at stride 8: labels uint8, or clicks float32, NaN where nothing is labelled."""
Loss = Callable[[Tensor, Tensor], Tensor]
"""Mean over the labelled cells of a network's output and a target, each of one image or crop."""


class DivergedError(CerealsError, ArithmeticError):
    """The loss is no longer finite."""


def segmentation_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy in nats over the labelled cells: logits (1, C, h, w), labels uint8 (1, h, w), VOID ignored."""
    return functional.cross_entropy(_at_least_float32(logits), labels.long(), ignore_index=VOID)


def cost_loss(prediction: Tensor, clicks: Tensor) -> Tensor:
    """Mean squared error over the labelled cells: prediction (1, 1, h, w), clicks (1, h, w), NaN where unlabelled."""
    labelled = ~torch.isnan(clicks)
    return functional.mse_loss(_at_least_float32(prediction[:, 0])[labelled], clicks[labelled])


def _at_least_float32(output: Tensor) -> Tensor:
    return output.to(torch.promote_types(output.dtype, torch.float32))


@dataclass(frozen=True)
class Epoch:
    """One line of a training's history: the mean of the losses of its steps."""

    epoch: int
    steps: int
    loss: float


class Trainer:
    """Adam on one sample a step until the epoch's loss has not improved for `patience_epochs`; keeps the best weights.

    `rng(epoch)` gives the random stream of an epoch: order of samples and dropout masks.
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
    def finished(self) -> bool:
        """Whether the loss has stopped improving, or the step limit is reached."""
        if not self.history:
            return False
        last = self.history[-1]
        waited = last.epoch - self.best.epoch
        return waited >= self.settings.patience_epochs or last.steps >= self.settings.max_steps

    def run_epoch(self, samples: Sequence[Sample]) -> Epoch:
        """Take one step on each sample, in random order, and record the epoch."""
        number = len(self.history)
        rng = self.rng(number)
        losses = [self._step(samples[index], rng) for index in rng.permutation(len(samples))]
        steps = len(losses) + (self.history[-1].steps if self.history else 0)
        epoch = Epoch(number, steps, float(torch.stack(losses).double().mean()))
        if not np.isfinite(epoch.loss):
            raise DivergedError(f"the loss of epoch {number} is {epoch.loss}: lower training.learning_rate")
        self.history.append(epoch)
        if self.best is epoch:
            self.best_weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return epoch

    def _step(self, sample: Sample, rng: np.random.Generator) -> Tensor:
        image, target = sample
        height, width = image.shape[:2]
        device = next(self.model.parameters()).device
        masks = draw_masks(rng, self.model.mask_shapes(height, width), self.dropout, device)
        context_px = self.model.context_px if self.settings.method == "cropping" else None
        parts = crops(_labelled(target), height, width, context_px, self.model.crop_grid_px)
        self.optimiser.zero_grad()
        losses = [self._add_gradient(crop, sample, masks) for crop in parts]
        self.optimiser.step()
        return torch.stack(losses).sum()

    def _add_gradient(self, crop: Crop, sample: Sample, masks: list[Tensor]) -> Tensor:
        """Add the gradient of a crop's share of the image's loss; return that share."""
        image, target = sample
        device = next(self.model.parameters()).device
        images = torch.from_numpy(image[crop.box.slices])[None].to(device, non_blocking=True).permute(0, 3, 1, 2)
        counted = np.where(crop.cells, target[crop.box.cell_slices], _unlabelled(target))
        targets = torch.from_numpy(counted)[None].to(device, non_blocking=True)
        rows, columns = crop.slices_at(self.model.mask_stride_px)
        with torch.autocast(device.type, self.precision, enabled=self.precision != torch.float32):
            output = self.model(images, [mask[..., rows, columns] for mask in masks])
        loss = self.loss(output, targets) * crop.share
        loss.backward()
        return loss.detach()

    def state(self) -> dict[str, Any]:
        """Everything needed to go on after this epoch, as tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "best_weights": self.best_weights,
            "history": [(epoch.epoch, epoch.steps, epoch.loss) for epoch in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_weights = state["best_weights"]
        self.history = [Epoch(*values) for values in state["history"]]


def _labelled(target: np.ndarray) -> np.ndarray:
    """Cells that the loss counts."""
    return target != VOID if target.dtype == np.uint8 else ~np.isnan(target)


def _unlabelled(target: np.ndarray) -> np.generic:
    """What a target of this kind holds where the loss counts nothing."""
    return np.uint8(VOID) if target.dtype == np.uint8 else np.float32(np.nan)
