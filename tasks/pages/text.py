"""Tables and a plot in plain text, for the terminal."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from rich.box import MARKDOWN
from rich.console import Console, JustifyMethod
from rich.table import Column, Table
from rich.text import Text

from cereals_core.curves import Band, Curve, Point, interpolate
from tasks.pages.wording import clicks, number, share, signed

MARKS, SHADES = "ox+*#@", ".:'`,;"
PLOT_COLUMNS, PLOT_ROWS = 72, 16
WIDE = 10_000


def round_table(points: Sequence[Point], pool_pixels: int) -> str:
    """Set a table of rounds: mIoU, its change, clicks, pixels and their share of the pool; the header alone if none."""
    rows = [
        [
            str(point.round),
            number(point.miou),
            signed(point.miou - points[index - 1].miou if index else math.nan),
            clicks(point.clicks),
            f"{point.pixels:,}",
            share(point.pixels, pool_pixels),
        ]
        for index, point in enumerate(points)
    ]
    return table(["round", "mIoU", "change", "clicks", "pixels", "of pool"], rows)


def comparison_table(series: Mapping[str, Sequence[Point]]) -> str:
    """Set campaigns side by side, a line a round: mIoU, clicks and pixels of each; blank where one lacks the round."""
    by_round = {name: {point.round: point for point in points} for name, points in series.items()}
    rounds = sorted(set().union(*by_round.values()))
    campaigns = [
        _table(["mIoU", "clicks", "pixels"], [_cells(points.get(each)) for each in rounds], title=name)
        for name, points in by_round.items()
    ]
    abreast = Table(box=MARKDOWN, show_header=False, show_edge=False, padding=(0, 2), pad_edge=False)
    abreast.add_row(_table(["round"], [[str(each)] for each in rounds], title=" "), *campaigns)
    return _plain(abreast)


def _cells(point: Point | None) -> list[str]:
    return [""] * 3 if point is None else [number(point.miou), clicks(point.clicks), f"{point.pixels:,}"]


def table(header: list[str], rows: list[list[str]], first: JustifyMethod = "right", columns: int = WIDE) -> str:
    """Set a table: columns to the right, the first as `first` says; it alone is cut to keep to `columns` characters."""
    return _plain(_table(header, rows, first), columns)


def _table(header: list[str], rows: list[list[str]], first: JustifyMethod = "right", title: str = "") -> Table:
    heads = [Column(header[0], justify=first), *(Column(name, justify="right", no_wrap=True) for name in header[1:])]
    made = Table(*heads, title=Text(title, no_wrap=True), box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for row in rows:
        made.add_row(Text(row[0], no_wrap=True), *row[1:])
    return made


def _plain(shown: Table, columns: int = WIDE) -> str:
    parts = Console(width=columns, force_terminal=False, markup=False, emoji=False).render(shown)
    return "".join(f"{line.rstrip()}\n" for line in "".join(part.text for part in parts).splitlines())


def plot(series: Mapping[str, Sequence[Point]]) -> str:
    """Plot mIoU against clicks in 80 columns: a mark a round, dots between; empty if no mIoU is finite.

    Where two campaigns meet, the first named stays visible.
    """
    finite = {name: [point for point in points if math.isfinite(point.miou)] for name, points in series.items()}
    everything = [point for points in finite.values() for point in points]
    if not everything:
        return ""
    grid = _Grid(everything)
    marked = list(zip(itertools.cycle(MARKS), finite.items(), strict=False))
    for mark, (_, points) in reversed(marked):
        grid.draw(points, mark)
    return grid.text() + "   ".join(f"{mark} {name}" for mark, (name, _) in marked) + "\n"


def band_plot(bands: Mapping[str, Band]) -> str:
    """Plot mIoU against clicks in 80 columns: a mark a column for each mean, shades from the lowest seed to the best.

    Where two strategies meet, the first named stays visible, and a mean before any shade; empty without a strategy.
    """
    if not bands:
        return ""
    ends = [(band.spend[-1], miou) for band in bands.values() for miou in (band.low.min(), band.high.max())]
    grid = _Grid([Point(0, float(miou), float(spend), 0) for spend, miou in ends])
    named = list(zip(itertools.cycle(MARKS), itertools.cycle(SHADES), bands.items(), strict=False))
    for _, shade, (_, band) in reversed(named):
        grid.fill(band, shade)
    for mark, _, (_, band) in reversed(named):
        grid.fill(replace(band, low=band.mean, high=band.mean), mark)
    return grid.text() + "   ".join(f"{mark}{shade} {name}" for mark, shade, (name, _) in named) + "\n"


class _Grid:
    """The characters of a plot; columns run from 0 to the most clicks, rows from the best mIoU down to the worst."""

    def __init__(self, points: Sequence[Point]) -> None:
        self.right = max(point.clicks for point in points) or 1.0
        self.top, bottom = max(point.miou for point in points), min(point.miou for point in points)
        self.row_miou = (self.top - bottom) / (PLOT_ROWS - 1) or 0.001
        self.cells = [[" "] * PLOT_COLUMNS for _ in range(PLOT_ROWS)]

    def draw(self, points: Sequence[Point], mark: str) -> None:
        """Put `mark` on each point, and dots on the straight lines between them."""
        for first, second in itertools.pairwise(points):
            for part in (step / PLOT_COLUMNS for step in range(1, PLOT_COLUMNS)):
                at = first.clicks + part * (second.clicks - first.clicks)
                self._put(at, first.miou + part * (second.miou - first.miou), ".")
        for point in points:
            self._put(point.clicks, point.miou, mark)

    def fill(self, band: Band, mark: str) -> None:
        """Put `mark` from the lowest to the highest seed in every column of the band."""
        columns = np.arange(PLOT_COLUMNS) * self.right / (PLOT_COLUMNS - 1)
        low, high = (
            interpolate(Curve(band.spend, np.asarray(each)), columns).tolist() for each in (band.low, band.high)
        )
        for at, lowest, highest in zip(columns.tolist(), low, high, strict=True):
            if math.isfinite(lowest):
                rows = max(round((highest - lowest) / self.row_miou), 1)
                for step in range(rows + 1):
                    self._put(at, lowest + (highest - lowest) * step / rows, mark)

    def _put(self, clicks_at: float, miou: float, mark: str) -> None:
        column = round(clicks_at / self.right * (PLOT_COLUMNS - 1))
        self.cells[round((self.top - miou) / self.row_miou)][column] = mark

    def text(self) -> str:
        """Return the lines, with mIoU at the left and clicks below."""
        scale = [f"{self.top - row * self.row_miou:6.3f}" if row % 5 == 0 else "" for row in range(PLOT_ROWS)]
        lines = [f"{label:6} |{''.join(cells)}".rstrip() for label, cells in zip(scale, self.cells, strict=True)]
        right = clicks(self.right)
        axis = f"{'':8}0{'clicks'.center(PLOT_COLUMNS - 1 - len(right))}{right}"
        return "\n".join(["  mIoU", *lines, f"{'':7}+{'-' * PLOT_COLUMNS}", axis, ""])
