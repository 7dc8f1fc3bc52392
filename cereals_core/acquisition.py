"""Which proposals of the whole pool go to the oracle: the best, as many as the round's budget holds."""

import math
from collections.abc import Iterable

import numpy as np

from cereals_core.errors import SettingsError

Proposals = dict[str, np.ndarray]
"""Columns of equal length: `score` float32; `y`, `x` integer, the window's position; `image_rank` integer, the place of
its image's id among all ids of the pool in sorted order; and whatever else should travel along."""


def regions_in_budget(images_per_round: float, mean_image_pixels: float, window_px: int) -> int:
    """Whole regions in a round's budget of pixels: floor(images_per_round * mean_image_pixels / window_px^2).

    `mean_image_pixels` is the mean area of the pool's images in pixels. Raises SettingsError if not one region fits.
    Source: the paper fills a budget of m images; rounding down is our choice.
    """
    budget_px = images_per_round * mean_image_pixels
    regions = math.floor(budget_px / window_px**2)
    if regions < 1:
        raise SettingsError(
            f"images_per_round = {images_per_round} is a budget of {budget_px:.0f} pixels a round, less than one "
            f"region of window_px = {window_px} ({window_px**2} pixels); raise images_per_round to at least "
            f"{window_px**2 / mean_image_pixels:.3g}, or lower window_px"
        )
    return regions


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


def best_of(chunks: Iterable[Proposals], k: int) -> Proposals:
    """The k best proposals of all chunks, in the order of `top_k`; all of them if there are fewer.

    Holds one chunk and k proposals at a time, so memory does not grow with the pool; chunks may come in any order and
    of any size, all with the same columns. No chunk at all gives no column.
    """
    best: Proposals = {}
    for chunk in chunks:
        joined = {name: np.concatenate([best[name], column]) if best else column for name, column in chunk.items()}
        kept = top_k(joined["score"], joined["y"], joined["x"], joined["image_rank"], k)
        best = {name: column[kept] for name, column in joined.items()}
    return best
