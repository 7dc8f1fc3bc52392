"""How sure a number is that only a few seeds tell: spread, bootstrap intervals, and paired tests.

A statistic that is not defined, for want of values, is NaN, never 0.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy  # scipy.stats is loaded where it is first used, which takes half a second

from cereals_core.shapes import Float64

RESAMPLES = 10_000
LEVEL = 0.95
"""Confidence of intervals."""
EXACT_PAIRS = 16
"""Largest number of pairs of which all sign flips are looked at: 65,536 of them."""


@dataclass(frozen=True)
class Spread:
    """Summary of finite values: count, mean, sample standard deviation, smallest and largest.

    `std` is NaN below 2 values, all but the count without any.
    """

    n: int
    mean: float
    std: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Describe the finite ones among `values`; NaN and infinities are left out."""
    finite = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not finite.size:
        return Spread(0, math.nan, math.nan, math.nan, math.nan)
    std = float(finite.std(ddof=1)) if finite.size > 1 else math.nan
    return Spread(finite.size, float(finite.mean()), std, float(finite.min()), float(finite.max()))


def bootstrap_interval(
    values: Float64[np.ndarray, "n"], rng: np.random.Generator, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """Estimate a percentile interval of the mean of `values`.

    It is the central LEVEL of `resamples` means of n values drawn again. NaN for n < 2. It never leaves the range of
    the values, so of a handful of seeds it is too narrow (Efron and Tibshirani 1993, chapter 13).
    """
    if len(values) < 2:
        return math.nan, math.nan
    means = values[rng.integers(len(values), size=(resamples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def t_test_p(differences: Float64[np.ndarray, "n"]) -> float:
    """Compute the two-sided p value of Student's paired t test: t = mean / (s / sqrt(n)), n - 1 degrees of freedom.

    `differences` are taken as normal. NaN for n < 2, and where all are equal but for rounding.
    """
    if len(differences) < 2 or np.ptp(differences) <= 1e-12 * np.abs(differences).max():
        return math.nan
    return float(scipy.stats.ttest_1samp(differences, 0).pvalue)


def sign_flip_p(differences: Float64[np.ndarray, "n"], rng: np.random.Generator, resamples: int = RESAMPLES) -> float:
    """Compute the two-sided p value of the sign-flip permutation test.

    It tells how often flips move the mean as far from 0 as it was seen. `differences` are taken as symmetric about 0 if
    nothing differs. For n <= EXACT_PAIRS all 2^n flips are counted, so that p is never below 2 / 2^n: 0.25 for three
    pairs. Else it is (1 + hits) / (1 + resamples) over flips drawn from `rng` (Phipson and Smyth 2010). NaN for n < 2.
    """
    n = len(differences)
    if n < 2:
        return math.nan
    exact = n <= EXACT_PAIRS
    flips = np.arange(2**n)[:, None] >> np.arange(n) & 1 if exact else rng.integers(2, size=(resamples, n))
    rounding = 1e-12 * np.abs(differences).sum()
    hits = int((np.abs((1 - 2 * flips) @ differences) >= abs(differences.sum()) - rounding).sum())
    return hits / 2**n if exact else (1 + hits) / (1 + resamples)


@dataclass(frozen=True)
class Paired:
    """Difference between two strategies over the seeds both have; `low`, `high`: its bootstrap interval.

    `difference` is NaN without a pair, all else below 2 pairs.
    """

    n: int
    difference: float
    low: float
    high: float
    t_p: float
    flip_p: float


def paired(
    values: Mapping[int, float], baseline: Mapping[int, float], rng: np.random.Generator, resamples: int = RESAMPLES
) -> Paired:
    """Compare values by seed with a baseline's: mean of `values - baseline` over the seeds where both are finite."""
    every = np.array([values[seed] - baseline[seed] for seed in sorted(values.keys() & baseline.keys())], np.float64)
    differences = every[np.isfinite(every)]
    return Paired(
        len(differences),
        spread(differences).mean,
        *bootstrap_interval(differences, rng, resamples),
        t_test_p(differences),
        sign_flip_p(differences, rng, resamples),
    )
