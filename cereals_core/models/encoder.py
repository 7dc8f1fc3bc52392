"""Images as pretrained encoders take them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cereals_core.models.base import Images
from cereals_core.shapes import Float

COARSEST_PX = 32
"""Stride of the coarsest features."""


class Preparation(nn.Module):
    """Shift and scale of colours as the weights were trained with; they are part of the weights.

    `mean`, `std`: of each channel, for images in [0, 255].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255)

    def forward(self, images: Images) -> Float[Tensor, "b 3 _ _"]:
        """Normalise, and fill up with mean colour on the right and below to whole cells of 32 px (our choice)."""
        height, width = images.shape[-2:]
        x = (images - self.mean) / self.std
        return functional.pad(x, (0, -width % COARSEST_PX, 0, -height % COARSEST_PX))


def made_on_cpu(build: Callable[[], Any]) -> Any:
    """Build a module of a library, some of which look at values while they do, which outlines do not have."""
    wanted = torch.get_default_device()
    with torch.device("cpu"):
        made = build()
    return made.to(wanted)
