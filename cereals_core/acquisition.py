"""Which proposals of the whole pool go to the oracle: the best, as many as the round's budget holds."""

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cereals_core.acquisition_settings import Acquisition
from cereals_core.errors import SettingsError
from cereals_core.shapes import Float32, Int64, Integer, Shaped

Proposals = dict[str, Shaped[np.ndarray, "n"]]
"""Columns: `score` float32, never NaN; `y`, `x` integer, the region's position; `image_rank` integer, the place of its
image's id among all ids of the pool in sorted order; `spend` float64, what it takes from the budget, at least 1."""


@dataclass(frozen=True)
class Budget:
    """The most a round may spend, `amount` pixels or predicted clicks, and the `least` that one query takes of it."""

    amount: float
    unit: Literal["pixels", "clicks"]
    least: float

    @property
    def most_queries(self) -> int:
        """Largest number of queries that a round can ask for."""
        return int(self.amount // self.least)


def round_budget(wanted: Acquisition, mean_image_pixels: float, smallest_image_pixels: int) -> Budget:
    """Compute a round's budget: images_per_round * mean_image_pixels pixels, or clicks_per_round predicted clicks.

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


class Cutoff:
    """Lower bound of the k-th best score in the pool, as far as scores are known by now.

    Scores are added as they are found, in any order, from any thread; `least` never falls, and never exceeds the k-th
    best score of all. It saves the search for proposals that no budget of k queries can reach.
    """

    def __init__(self, k: int) -> None:
        self.k, self.least = k, -np.inf
        self._best, self._known, self._lock = np.empty(0, np.float32), set[Hashable](), threading.Lock()

    def add(self, origin: Hashable, scores: Float32[np.ndarray, "n"]) -> None:
        """Add the scores of the proposals of `origin`, never NaN; those of one origin count once."""
        with self._lock:
            if origin in self._known:
                return
            self._known.add(origin)
            self._best = np.concatenate([self._best, scores])
            surplus = len(self._best) - self.k
            if surplus >= 0:
                self._best = np.partition(self._best, surplus)[surplus:]
                self.least = float(self._best[0])


def top_k(proposals: Proposals, k: int) -> Int64[np.ndarray, "taken"]:
    """Return the indices of the k best proposals, best first.

    Equal scores go to the smaller (y, x), then the smaller image rank. Returns min(k, n) of them. Only the k best and
    what ties with the last of them are sorted.
    """
    scores = proposals["score"]
    kept = np.arange(len(scores))
    if k < len(scores):
        kept = np.flatnonzero(scores >= -np.partition(-scores, k - 1)[k - 1])
    order = np.lexsort((*(proposals[name][kept] for name in ("image_rank", "x", "y")), -scores[kept]))
    return kept[order[:k]]


def best_within(proposals: Proposals, budget: float) -> Int64[np.ndarray, "taken"]:
    """Return the indices of the best proposals that the budget holds, in the order of `top_k`.

    They are the longest beginning of that order whose `spend` sums to `budget` at most; the best one is in it whatever
    it spends, so that every round asks for something (our choice). None without a proposal.
    """
    spend = proposals["spend"]
    most = int(budget // spend.min()) if spend.size else 0
    order = top_k(proposals, max(most, 1))
    within = int(np.searchsorted(spend[order].cumsum(), budget, side="right"))
    return order[: max(within, 1)]


def best_of_classes(
    proposals: Proposals, classes: Integer[np.ndarray, "n"], k: int
) -> list[Int64[np.ndarray, "taken"]]:
    """Return for each class the indices of its k best proposals, in the order of `top_k`."""
    found = []
    for each in np.unique(classes):
        members = np.flatnonzero(classes == each)
        found.append(members[top_k({name: column[members] for name, column in proposals.items()}, k)])
    return found


def best_within_classes(
    proposals: Proposals, classes: Integer[np.ndarray, "n"], budget: float, share: float
) -> Int64[np.ndarray, "taken"]:
    """Return the indices of proposals that the budget holds, a share of it spent on each class as much, best first.

    Every class that there is spends its part of `share` times the budget on its best ones, as many as that holds; what
    is left then goes to the best of all others, as by `best_within`. Source: ClaSP PE (2026) stratifies so by predicted
    class; what a class cannot spend is free for all (our choice).
    """
    found = best_of_classes(proposals, classes, len(classes))
    part = share * budget / max(len(found), 1)
    within = [each[: int(np.searchsorted(proposals["spend"][each].cumsum(), part, side="right"))] for each in found]
    taken = np.concatenate([np.empty(0, np.int64), *within])
    left = np.setdiff1d(np.arange(len(classes)), taken)
    rest = {name: column[left] for name, column in proposals.items()}
    more = left[best_within(rest, budget - proposals["spend"][taken].sum())] if len(left) else left
    if len(taken) and proposals["spend"][taken].sum() + proposals["spend"][more].sum() > budget:
        more = more[:0]  # the least that `best_within` takes is more than is left
    both = np.concatenate([taken, more])
    return both[top_k({name: column[both] for name, column in proposals.items()}, len(both))]
