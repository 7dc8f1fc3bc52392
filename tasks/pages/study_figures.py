"""The figure of a study: mean learning curves over seeds, with their range."""

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, PercentFormatter
from matplotlib.typing import LineStyleType

from cereals_core.curves import Axis, Band, Curve, band, curve_of, interpolate
from cereals_core.study_statistics import TARGET, Arm, Run, StudyFacts
from tasks.pages.figures import COLOURS, DPI, LABELS, MARKERS, NORMAL, SMALL, png_of, tidy
from tasks.pages.wording import campaign_title

SHARES: dict[Axis, str] = {
    "clicks": "share of the clicks that every label costs",
    "pixels": "share of the pool's pixels",
}
DASHES: tuple[LineStyleType, ...] = ("-", "-.", ":")
UPPER_BOUND_DASH: LineStyleType = "--"


class Look(NamedTuple):
    """The look of a strategy; no two of 21 look the same, and upper bounds alone are dashed."""

    colour: str
    marker: str
    dash: LineStyleType


def look(index: int, upper_bound: bool) -> Look:
    """Return the look of strategy `index`: seven colours, then the same with other marks and line styles."""
    again, place = divmod(index, len(COLOURS))
    marker = MARKERS[(place + again) % len(MARKERS)]
    return Look(COLOURS[place], marker, UPPER_BOUND_DASH if upper_bound else DASHES[again % len(DASHES)])


def study_curve(facts: StudyFacts, axis: Axis) -> bytes:
    """Draw mIoU against clicks or pixels, as PNG.

    Each strategy is its mean over the seeds whose campaigns ended, where all are defined, with a mark at the mean spend
    of each round and a band from the worst seed to the best. Campaigns that still run, and those without a range in
    common, are thin lines of their own. The full-label mIoU is the mean over seeds, with its range.
    """
    legend_rows = -(-len(facts.arms) // 3)
    figure = Figure(figsize=(9, 5 + 0.21 * legend_rows), dpi=1.5 * DPI, layout="constrained")
    axes = figure.subplots()
    handles = []
    for index, arm in enumerate(facts.arms):
        style = look(index, arm.upper_bound)
        _draw_arm(axes, arm, axis, style)
        handles.append(_handle(arm, style))
    _draw_reference(axes, facts)
    _draw_scales(axes, facts, axis)
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=3, fontsize=NORMAL, frameon=False, handlelength=3
        )
    return png_of(figure)


def _draw_arm(axes: Axes, arm: Arm, axis: Axis, style: Look) -> None:
    ended = [run for run in arm.runs if run.last is not None]
    seen = band([curve_of(run.points, axis) for run in ended])
    single = arm.runs if seen is None else [run for run in arm.runs if run.last is None]
    for run in single:
        line = axes.plot(*curve_of(run.points, axis), color=style.colour, linestyle=style.dash, linewidth=0.9)
        line[0].set(marker=style.marker, markersize=2.5)
    if seen is not None:
        axes.fill_between(seen.spend, seen.low, seen.high, color=style.colour, alpha=0.13, linewidth=0)
        axes.plot(seen.spend, seen.mean, color=style.colour, linestyle=style.dash, linewidth=1.8)
        axes.plot(*_marks(seen, ended, axis), color=style.colour, marker=style.marker, markersize=5, linestyle="none")


def _marks(seen: Band, runs: list[Run], axis: Axis) -> tuple[np.ndarray, np.ndarray]:
    """Find the mean line's points at the mean spend of each round, moved to the line's end if it is beyond."""
    spends: dict[int, list[float]] = {}
    for run in runs:
        for point in run.points:
            spends.setdefault(point.round, []).append(getattr(point, axis))
    at = np.clip([np.mean(values) for values in spends.values()], seen.spend[0], seen.spend[-1])
    return at, interpolate(Curve(seen.spend, seen.mean), at)


def _handle(arm: Arm, style: Look) -> Line2D:
    name = campaign_title(arm.name, arm.upper_bound).replace("$", r"\$")
    return Line2D([], [], color=style.colour, linestyle=style.dash, marker=style.marker, markersize=5, label=name)


def _draw_reference(axes: Axes, facts: StudyFacts) -> None:
    full = facts.full_miou
    if not full.n:
        return
    axes.axhspan(full.low, full.high, color="0.35", alpha=0.12, linewidth=0)
    _draw_level(axes, full.mean, "-", "every label", above=full.high)
    _draw_level(axes, TARGET * full.mean, ":", f"{100 * TARGET:.0f} % of it", above=TARGET * full.mean)


def _draw_level(axes: Axes, miou: float, dash: LineStyleType, name: str, above: float) -> None:
    axes.axhline(miou, color="0.35", linewidth=1.2, linestyle=dash)
    place = axes.get_yaxis_transform()
    axes.text(0.01, above, f"{name}: {miou:.3f}", transform=place, va="bottom", fontsize=SMALL, color="0.25")


def _draw_scales(axes: Axes, facts: StudyFacts, axis: Axis) -> None:
    full = facts.full_spend(axis)
    axes.margins(0.03, 0.06)
    tidy(axes)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(LABELS[axis], fontsize=NORMAL)
    axes.set_ylabel("mIoU", fontsize=NORMAL)
    shares = axes.secondary_xaxis(
        "top", functions=(lambda spend: np.divide(spend, full), lambda share: np.multiply(share, full))
    )
    shares.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    shares.tick_params(labelsize=SMALL, length=2, color="0.5")
    shares.spines[:].set_visible(False)
    shares.set_xlabel(SHARES[axis], fontsize=NORMAL)
