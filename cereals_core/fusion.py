"""One score from information and cost: both scaled to [0, 1] over the whole pool, then fused.

All arithmetic is elementwise float32 in the order written, so equal inputs give equal bits on every machine. Rounding
may make scores equal, but never swaps them: each step rises, or falls, with its inputs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from cereals_core.shapes import Bool, Float32

Scores = Float32[np.ndarray, "*shape"]


@dataclass(frozen=True)
class Extent:
    """Smallest and largest value of a region map over candidates; low = +inf, high = -inf if there is none."""

    low: float
    high: float


def extent_of(values: Scores, mask: Bool[np.ndarray, "*shape"]) -> Extent:
    """Return the extent of `values` where `mask` is True; empty if that is nowhere."""
    chosen = values if mask.all() else values[mask]
    return Extent(float(chosen.min(initial=np.inf)), float(chosen.max(initial=-np.inf)))


def scale(values: Scores, extent: Extent) -> Scores:
    """Scale values linearly, low to 0 and high to 1: (value - low) / (high - low), in [0, 1].

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


def _g1(information: Scores, cost: Scores, alpha: float, offset: float) -> Scores:
    return information / (1.0 + cost)


def _g2(information: Scores, cost: Scores, alpha: float, offset: float) -> Scores:
    return (1.0 - cost) * information


def _g3(information: Scores, cost: Scores, alpha: float, offset: float) -> Scores:
    return alpha * information + (1.0 - alpha) * (1.0 - cost)


def _per_click(information: Scores, cost: Scores, alpha: float, offset: float) -> Scores:
    return information / (cost + np.float32(offset))


def _information(information: Scores, cost: Scores, alpha: float, offset: float) -> Scores:
    return information


FUSIONS: dict[str, Callable[[Scores, Scores, float, float], Scores]] = {
    "g1": _g1,
    "g2": _g2,
    "g3": _g3,
    "per_click": _per_click,
    "none": _information,
}
"""The paper's g1 = I / (1 + C), g2 = (1 - C) I, g3 = alpha I + (1 - alpha)(1 - C); I / (C + offset); and I alone.

Each takes information and cost in [0, 1], alpha in [0, 1], which only g3 reads, and an offset above 0, which only
per_click does. More information never scores less, and more cost never more. Source of per_click: information per unit
of cost, Settles, Craven and Friedland (2008); the offset, against predictions near 0, is our choice.
"""
TINY = np.finfo(np.float32).tiny
"""What stands for a score of 0 in logarithms."""


def fuse(
    name: str,
    information: Scores,
    cost: Scores | None,
    alpha: float,
    offset: float,
    candidates: Bool[np.ndarray, "*shape"],
) -> Scores:
    """Fuse information and cost into a score of every window by the fusion `name`; -inf where `candidates` is False.

    `information` and `cost` are in [0, 1], as `scale` returns them. No cost (None) means that
    every region costs the same, which scales to 0.
    """
    fused = FUSIONS[name](information, np.zeros_like(information) if cost is None else cost, alpha, offset)
    return fused if candidates.all() else np.where(candidates, fused, np.float32(-np.inf))


def noisy(scores: Scores, strength: float, generator: np.random.Generator) -> Scores:
    """Add Gumbel noise times `strength` to the logarithm of each score; -inf stays.

    Taking the best ones then draws windows one after the other, each with a chance in proportion to its score to the
    power of 1 / strength. Source: Kirsch et al. (2021), "power" acquisition; on log scores, ClaSP PE (2026).
    """
    noise = strength * generator.gumbel(size=scores.shape)
    logarithms = np.log(np.maximum(scores, TINY).astype(np.float64))
    return np.where(scores == -np.inf, -np.inf, logarithms + noise).astype(np.float32)
