"""Dropout masks as an argument, drawn from a named random stream and the same on every device."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cereals_core.shapes import Float32, UInt8


def draw_masks(
    rng: np.random.Generator, shapes: Sequence[tuple[int, ...]], dropout: float, device: torch.device | str = "cpu"
) -> list[Float32[Tensor, "..."]]:
    """Draw one mask of each shape: 0 with probability `dropout`, else 1 / (1 - dropout).

    At 0.5 a mask costs one random bit an element.
    """
    return [_draw(rng, shape, dropout).to(device, non_blocking=True) for shape in shapes]


def _draw(rng: np.random.Generator, shape: tuple[int, ...], dropout: float) -> Float32[Tensor, "..."]:
    """Draw one mask by NumPy alone, which lets other threads work meanwhile and starts none of its own."""
    size, scale = math.prod(shape), np.float32(1) / np.float32(1 - dropout)
    keep = _bits(rng, size) if dropout == 0.5 else rng.random(size, np.float32) >= dropout
    return torch.from_numpy(np.multiply(keep, scale)).reshape(shape)


def _bits(rng: np.random.Generator, size: int) -> UInt8[np.ndarray, "size"]:
    return np.unpackbits(np.frombuffer(rng.bytes(-(-size // 8)), np.uint8), count=size)
