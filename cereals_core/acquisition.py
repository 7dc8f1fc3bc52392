"""Which proposals of the whole pool go to the oracle: the best, as many as the round's budget holds."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cereals_core.errors import SettingsError
from cereals_core.settings import Acquisition

Proposals = dict[str, np.ndarray]
"""Columns of equal length: `score` float32; `y`, `x` integer, the region's position; `image_rank` integer, the place
of its image's id among all ids of the pool in sorted order; `spend` float64, what it takes from the budget, at least 1;
and whatever else should travel along."""


@dataclass(frozen=True)
class Budget:
    """What a round may spend, `amount` pixels or predicted clicks, and the `least` that one query takes of it."""

    amount: float
    unit: Literal["pixels", "clicks"]
    least: float

    @property
    def most_queries(self) -> int:
        """No round asks for more queries than this."""
        return int(self.amount // self.least)


def round_budget(wanted: Acquisition, mean_image_pixels: float, smallest_image_pixels: int) -> Budget:
    """The budget of a round: images_per_round * mean_image_pixels pixels, or clicks_per_round predicted clicks.

    `mean_image_pixels` and `smallest_image_pixels` are areas of the pool's images. A window takes its area, a whole
    image its own; with a budget in clicks a query takes what it is predicted to cost, at least 1 click. Raises
    SettingsError if not one query fits. Source: the paper fills a budget of m images; clicks are our choice.
    """
    if wanted.clicks_per_round is not None:
        budget = Budget(wanted.clicks_per_round, "clicks", 1)
        said = f"clicks_per_round = {wanted.clicks_per_round}"
    else:
        least = wanted.window_px**2 if wanted.unit == "region" else smallest_image_pixels
        budget = Budget(wanted.images_per_round * mean_image_pixels, "pixels", least)
        said = f"images_per_round = {wanted.images_per_round}"
    if budget.most_queries < 1:
        raise SettingsError(
            f"acquisition.{said} is a budget of {budget.amount:.0f} {budget.unit} a round, less than one query takes "
            f"({budget.least:.0f} {budget.unit}); raise it {budget.least / budget.amount:.3g}-fold"
            + (f", or lower window_px = {wanted.window_px}" if wanted.unit == "region" else "")
        )
    return budget


def top_k(scores: np.ndarray, y: np.ndarray, x: np.ndarray, image_rank: np.ndarray, k: int) -> np.ndarray:
    """Indices of the k best proposals, best first; equal scores go to the smaller (y, x), then the smaller image rank.

    All arguments are (n,); scores are float32, never NaN. Returns int64 (min(k, n),). Only the k best and what ties
    with the last of them are sorted.
    """
    kept = np.arange(len(scores))
    if k < len(scores):
        kept = np.flatnonzero(scores >= -np.partition(-scores, k - 1)[k - 1])
    order = np.lexsort((image_rank[kept], x[kept], y[kept], -scores[kept]))
    return kept[order[:k]]


def best_within(chunks: Iterable[Proposals], budget: float) -> Proposals:
    """The best proposals of all chunks that the budget holds, in the order of `top_k`.

    They are the longest beginning of that order whose `spend` sums to `budget` at most; the best one is in it whatever
    it spends, so that every round asks for something (our choice). Holds one chunk and one round's queries at a time,
    so memory does not grow with the pool; chunks may come in any order and of any size, all with the same columns. No
    chunk at all gives no column.
    """
    best: Proposals = {}
    for chunk in chunks:
        joined = {name: np.concatenate([best[name], column]) if best else column for name, column in chunk.items()}
        spend = joined["spend"]
        most = int(budget // spend.min()) if spend.size else 0
        kept = top_k(joined["score"], joined["y"], joined["x"], joined["image_rank"], max(most, 1))
        within = int(np.searchsorted(spend[kept].cumsum(), budget, side="right"))
        best = {name: column[kept[: max(within, 1)]] for name, column in joined.items()}
    return best
