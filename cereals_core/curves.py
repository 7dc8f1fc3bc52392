"""Learning curves: mIoU against what was spent, as straight lines between rounds."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cereals_core.shapes import Float64, Real

Axis = Literal["clicks", "with_crossings", "with_components", "pixels"]
"""What is spent: clicks as vertices (c_p), with border crossings (c_p + c_i), with a click for each component as well
(c_p + c_i + c_c), or pixels."""
AXES: tuple[Axis, Axis] = ("clicks", "pixels")
COUNTS: tuple[Axis, Axis, Axis] = ("clicks", "with_crossings", "with_components")
"""Three ways to count clicks."""


@dataclass(frozen=True)
class Point:
    """One point of a learning curve: the model of a round, and the cost of the labels it was trained on.

    `miou`: in [0, 1]; `clicks`: true clicks (polygon vertices) so far; `pixels`: labelled pixels so far; `crossings`,
    `components`: of the regions asked for so far, 0 where they are not told.
    """

    round: int
    miou: float
    clicks: float
    pixels: int
    crossings: int = 0
    components: int = 0

    @property
    def with_crossings(self) -> float:
        """Clicks, and border crossings."""
        return self.clicks + self.crossings

    @property
    def with_components(self) -> float:
        """Clicks, border crossings, and a click for each component."""
        return self.with_crossings + self.components


class Curve(NamedTuple):
    """A piecewise linear learning curve: `spend` in clicks or pixels, strictly rising; `miou` in [0, 1]."""

    spend: Float64[np.ndarray, "points"]
    miou: Float64[np.ndarray, "points"]


def curve_of(points: Iterable[Point], axis: Axis) -> Curve:
    """Sort points into a curve by what was spent on them, as `Axis` counts it.

    Of equal spend the latest round counts, and points without a mIoU do not. mIoU need not rise. Nothing is said
    outside the points: no extrapolation (our choice).
    """
    in_order = sorted(points, key=lambda point: point.round)
    miou = {float(getattr(point, axis)): point.miou for point in in_order if math.isfinite(point.miou)}
    spend = sorted(miou)
    return Curve(np.array(spend, np.float64), np.array([miou[at] for at in spend], np.float64))


def interpolate(curve: Curve, spend: Real[np.ndarray, "places"]) -> Float64[np.ndarray, "places"]:
    """Read mIoU off the straight lines between points; NaN outside the points."""
    if not curve.spend.size:
        return np.full(spend.shape, np.nan)
    return np.interp(spend, curve.spend, curve.miou, left=np.nan, right=np.nan)


def common_range(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """Return smallest and largest spend at which all curves are defined; None if there is none, or no curve."""
    if not curves or not all(curve.spend.size for curve in curves):
        return None
    low, high = max(curve.spend[0] for curve in curves), min(curve.spend[-1] for curve in curves)
    return (float(low), float(high)) if low <= high else None


@dataclass(frozen=True, eq=False)
class Band:
    """Curves of several seeds as one: mean, sample standard deviation, smallest and largest mIoU."""

    spend: Float64[np.ndarray, "places"]
    mean: Float64[np.ndarray, "places"]
    std: Float64[np.ndarray, "places"]
    low: Float64[np.ndarray, "places"]
    high: Float64[np.ndarray, "places"]


def band(curves: Sequence[Curve], steps: int = 200) -> Band | None:
    """Average curves over their `common_range`, with their spread; None if that is empty.

    Both are taken at `steps` even steps and at every point of a curve, so that the mean's line is exact (our choice).
    `std` is NaN for a single curve.
    """
    limits = common_range(curves)
    if limits is None:
        return None
    places = np.concatenate([np.linspace(*limits, steps), *(curve.spend for curve in curves)])
    spend = np.unique(places[(places >= limits[0]) & (places <= limits[1])])
    miou = np.stack([interpolate(curve, spend) for curve in curves])
    std = miou.std(axis=0, ddof=1) if len(curves) > 1 else np.full(spend.shape, np.nan)
    return Band(spend, miou.mean(axis=0), std, miou.min(axis=0), miou.max(axis=0))


def spend_to_reach(curve: Curve, miou: float) -> float | None:
    """Return the smallest spend at which the curve is at `miou` or above, in its unit; None if it never is.

    If the first point already is, its spend is returned, though less might have done. A curve may fall again later.
    """
    above = np.flatnonzero(curve.miou >= miou)
    if not above.size:
        return None
    if (after := int(above[0])) == 0:
        return float(curve.spend[0])
    (x0, x1), (y0, y1) = (values[after - 1 : after + 1].tolist() for values in curve)
    return x0 + (miou - y0) / (y1 - y0) * (x1 - x0)


def area_under_curve(curve: Curve, low: float, high: float) -> float:
    """Average mIoU over the spend from `low` to `high`: integral of the straight lines / (high - low).

    NaN unless low < high and the curve is defined from one to the other. In [0, 1] (our choice of normalisation).
    """
    inside = (curve.spend > low) & (curve.spend < high)
    spend = np.concatenate([[low], curve.spend[inside], [high]])
    return float(np.trapezoid(interpolate(curve, spend), spend) / (high - low)) if low < high else math.nan
