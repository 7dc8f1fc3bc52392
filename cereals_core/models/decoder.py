"""A small decoder over features of a pretrained encoder at strides 8, 16 and 32, joined at stride 8.

Features of each stride are normalised over their channels, cell by cell, and go through a 1 x 1 convolution; those
of the coarser strides are upsampled bilinearly. Their sum is what a 1 x 1 convolution of all of them side by side would
give. A ReLU, a 3 x 3 convolution, a ReLU, dropout and the scores follow (our choice).

A **window** is a square of cells with the features around it that its outputs depend on, in the image or, where it
ends, as the whole image would continue them. Outputs of windows are those of the whole image but for rounding.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from cereals_core.grid import FEATURE_STRIDES_PX, STRIDE_PX, map_shape
from cereals_core.models.base import Masks, Network, Outputs
from cereals_core.shapes import Float

CHANNELS = 96
CONTEXT_CELLS = 1
"""Cells of the features at every stride around a window, by which its outputs are those of the whole image."""


class Features(NamedTuple):
    """Features of images of one size, or of windows, at each of the three strides, the finest first.

    Tensors (b, channels, rows, columns) where a network gives or takes them; arrays (b, rows, columns, channels) on the
    way there. `inside`, bool (b, rows, columns) at stride 8: for windows with one cell of context on each side, which
    of those cells lie in their image; None for whole images.
    """

    fine: Any
    middle: Any
    coarse: Any
    inside: Any = None

    @property
    def maps(self) -> tuple[Any, Any, Any]:
        """The features alone."""
        return self.fine, self.middle, self.coarse


class Decoder(Network):
    """The decoder by itself: what is trained over a frozen trunk. Its images are `Features`.

    `channels`: of the features, from the finest on. `outputs`: channels of the result.
    """

    mask_stride_px = STRIDE_PX
    scores = ("score.",)

    def __init__(self, channels: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.join = nn.ModuleList(
            nn.Conv2d(count, CHANNELS, 1, bias=stride_px == STRIDE_PX)
            for count, stride_px in zip(channels, FEATURE_STRIDES_PX, strict=True)
        )
        self.refine = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=CONTEXT_CELLS)
        self.score = nn.Conv2d(CHANNELS, outputs, 1)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all weights: He-normal for ReLU layers, the first ones as one layer, LeCun-normal for scores."""
        joined = sum(layer.in_channels for layer in self._joins)
        stds = {self.refine: (2 / self.refine.weight[0].numel()) ** 0.5, self.score: CHANNELS**-0.5}
        for layer in (*self._joins, self.refine, self.score):
            nn.init.normal_(layer.weight, std=stds.get(layer, (2 / joined) ** 0.5), generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    @property
    def _joins(self) -> list[nn.Conv2d]:
        return [layer for layer in self.join if isinstance(layer, nn.Conv2d)]

    def trunk(self, images: Features) -> Float[Tensor, "b c rows columns"]:
        """Compute everything before the dropout, for whole images or for windows."""
        joined = [
            _upsampled(layer(_normalised(each).to(layer.weight.dtype)), stride_px, images)
            for layer, each, stride_px in zip(self._joins, images.maps, FEATURE_STRIDES_PX, strict=True)
        ]
        x = torch.relu(joined[0] + joined[1] + joined[2])
        if images.inside is None:
            return torch.relu(self.refine(x))
        x = x * images.inside[:, None]  # beyond the image the convolution sees zeros
        return torch.relu(functional.conv2d(x, self.refine.weight, self.refine.bias))

    def example(self, count: int, height: int, width: int, device: str) -> Features:
        """Return empty features of so many images of this size in pixels."""
        maps = (
            torch.zeros((count, layer.in_channels, *(-(-side // stride_px) for side in (height, width))), device=device)
            for layer, stride_px in zip(self._joins, FEATURE_STRIDES_PX, strict=True)
        )
        return Features(*maps)

    def mask_shapes(self, height: int, width: int) -> list[tuple[int, ...]]:
        """Return the shape of the one dropout mask that `head` takes."""
        return [(1, CHANNELS, *map_shape(height, width))]

    def head(self, features: Float[Tensor, "b c rows columns"], masks: Masks | None = None) -> Outputs:
        """Finish the pass; `masks` as from `draw_masks`, None for no dropout."""
        scores: Tensor = self.score(features * masks[0] if masks else features)
        return scores


def _normalised(x: Float[Tensor, "b c rows columns"]) -> Float[Tensor, "b c rows columns"]:
    """Shift and scale the channels of each cell to mean 0 and variance 1, in float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(1, -1)
    return functional.layer_norm(x, x.shape[-1:]).movedim(-1, 1)


def _upsampled(x: Float[Tensor, "b c _ _"], stride_px: int, images: Features) -> Float[Tensor, "b c rows columns"]:
    """Upsample to stride 8 and the size of the finest features; of a window's context one cell is left there."""
    factor, is_window = stride_px // STRIDE_PX, images.inside is not None
    if factor > 1:
        x = _bilinear(x, factor, is_window)
    cut, (rows, columns) = factor - CONTEXT_CELLS if is_window else 0, images.fine.shape[-2:]
    return x[..., cut : cut + rows, cut : cut + columns]


def _bilinear(x: Float[Tensor, "b c _ _"], factor: int, is_window: bool) -> Float[Tensor, "b c _ _"]:
    """Upsample bilinearly, as `functional.interpolate` does, whose gradients CUDA sums in any order.

    Where there are gradients it is a product of matrices: of windows one for all their cells, which is the faster way.
    """
    if not torch.is_grad_enabled():
        return functional.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)
    down, across = (_weights(side, factor).to(x) for side in x.shape[-2:])
    if not is_window:
        return torch.matmul(torch.matmul(down, x), across.T)
    cells = torch.matmul(torch.kron(down, across), x.flatten(2).transpose(1, 2))
    return cells.transpose(1, 2).unflatten(2, (down.shape[0], across.shape[0]))


@cache
def _weights(size: int, factor: int) -> Float[Tensor, "finer size"]:
    """Compute the weights of `size` cells in a row for each cell of a row `factor` times as fine."""
    with torch.device("cpu"):
        place = ((torch.arange(size * factor) + 0.5) / factor - 0.5).clamp(0, size - 1)
        return (1 - (place[:, None] - torch.arange(size)).abs()).clamp(min=0)
