"""One score from information and cost: both scaled to [0, 1] over the whole pool, then fused.

All arithmetic is elementwise float32 in the order written, so equal inputs give equal bits on every machine. Rounding
may make scores equal, but never swaps them: each step rises, or falls, with its inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Extent:
    """Smallest and largest value of a region map over candidates; low = +inf, high = -inf if there is none."""

    low: float
    high: float


def extent_of(values: np.ndarray, mask: np.ndarray) -> Extent:
    """Extent of `values` (any shape) where `mask` (bool, same shape) is True; empty if that is nowhere."""
    chosen = values if mask.all() else values[mask]
    return Extent(float(chosen.min(initial=np.inf)), float(chosen.max(initial=-np.inf)))


def scale(values: np.ndarray, extent: Extent) -> np.ndarray:
    """Scale linearly, low to 0 and high to 1: (value - low) / (high - low); float32 to float32 in [0, 1], same shape.

    Values beyond the extent, which only windows that are no candidates have, are clipped. A constant map (low = high)
    and an empty extent scale to 0. Source: the paper, linearly over the whole data set; over its candidates is our
    choice.
    """
    if extent.high <= extent.low:
        return np.zeros(values.shape, np.float32)
    low, high = np.float32(extent.low), np.float32(extent.high)
    scaled = values - low
    scaled /= high - low
    return np.clip(scaled, 0, 1, out=scaled)


def _g1(information: np.ndarray, cost: np.ndarray, alpha: float) -> np.ndarray:
    return information / (1.0 + cost)


def _g2(information: np.ndarray, cost: np.ndarray, alpha: float) -> np.ndarray:
    return (1.0 - cost) * information


def _g3(information: np.ndarray, cost: np.ndarray, alpha: float) -> np.ndarray:
    return alpha * information + (1.0 - alpha) * (1.0 - cost)


def _information(information: np.ndarray, cost: np.ndarray, alpha: float) -> np.ndarray:
    return information


FUSIONS: dict[str, Callable[[np.ndarray, np.ndarray, float], np.ndarray]] = {
    "g1": _g1,
    "g2": _g2,
    "g3": _g3,
    "none": _information,
}
"""The paper's g1 = I / (1 + C), g2 = (1 - C) I, g3 = alpha I + (1 - alpha)(1 - C); and I alone.

Each takes information and cost, float32 in [0, 1] of one shape, and alpha in [0, 1], which only g3 reads. More
information never scores less, and more cost never more.
"""


def fuse(
    name: str, information: np.ndarray, cost: np.ndarray | None, alpha: float, candidates: np.ndarray
) -> np.ndarray:
    """Fused score of every window by the fusion `name`: float32, -inf where `candidates` (bool) is False.

    `information` and `cost` are float32 in [0, 1], as `scale` returns them, all of one shape. No cost (None) means that
    every region costs the same, which scales to 0.
    """
    fused = FUSIONS[name](information, np.zeros_like(information) if cost is None else cost, alpha)
    return fused if candidates.all() else np.where(candidates, fused, np.float32(-np.inf))
