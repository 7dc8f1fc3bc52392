"""Figures as PNG bytes, drawn with Matplotlib's figure objects alone, so that threads may draw at once."""

import io
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.ticker import EngFormatter
from PIL import Image

from cereals_core.curves import AXES, Axis, Point
from cereals_core.evaluation import calibration
from cereals_core.grid import STRIDE_PX, Box
from cereals_core.study_statistics import TARGET
from tasks.pages.facts import CostSample, RegionView, RoundFacts
from tasks.pages.wording import PREDICTOR_NAMES, campaign_title, clicks, clicks_of, place_of

MAX_PNG_BYTES = 150_000
"""The most bytes of a picture: pages carry several, and Prefect refuses to load pages of many megabytes."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart."""
MARKERS = "os^Dv<>"
LABELS: dict[Axis, str] = {"clicks": "clicks (polygon vertices)", "pixels": "labelled pixels"}
INFORMATION_COLOURS, COST_COLOURS = colormaps["viridis"].resampled(56), colormaps["cividis"].resampled(56)
MOST_BINS = 8
SMALL, NORMAL, LARGE = 8, 9, 11
DPI = 100
TITLE_INCHES = 0.65
"""Height of the two lines above the panels of a region."""


def curve(series: Mapping[str, Sequence[Point]], reference: float | None = None) -> bytes:
    """Draw mIoU against clicks and against labelled pixels, one line for each campaign.

    `reference`: mIoU of the same model trained with every label; drawn with the line of TARGET of it. Points whose
    mIoU is NaN leave a gap; without any point the axes stay empty.
    """
    figure = Figure(figsize=(9, 3.9), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, axis in zip(panels, AXES, strict=True):
        _curve_panel(axes, series, axis)
        _reference_lines(axes, reference)
        if len(series) == 1:
            _round_numbers(axes, next(iter(series.values())), axis)
    panels[0].set_ylabel("mIoU", fontsize=NORMAL)
    handles, labels = panels[0].get_legend_handles_labels()
    if len(handles) > 1:
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=NORMAL, frameon=False)
    return png_of(figure)


def _curve_panel(axes: Axes, series: Mapping[str, Sequence[Point]], axis: Axis) -> None:
    for index, (name, points) in enumerate(series.items()):
        axes.plot(
            [getattr(point, axis) for point in points],
            [point.miou for point in points],
            color=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            markersize=5,
            linewidth=1.8,
            label=name.replace("$", r"\$"),
        )
    axes.margins(0.06)
    tidy(axes)
    axes.set_xlabel(LABELS[axis], fontsize=NORMAL)
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _round_numbers(axes: Axes, points: Sequence[Point], axis: Axis) -> None:
    """Write its round beside each point."""
    for point in points:
        if math.isfinite(point.miou):
            place = (getattr(point, axis), point.miou)
            label = axes.annotate(f"round {point.round}", place, (6, 5), textcoords="offset points", fontsize=SMALL)
            label.set_path_effects([withStroke(linewidth=3, foreground="white")])


def _reference_lines(axes: Axes, reference: float | None) -> None:
    if reference is not None:
        goal = TARGET * reference, ":", f"{100 * TARGET:.0f} % of it"
        for level, style, label in ((reference, "--", "every label"), goal):
            axes.axhline(level, color="0.35", linewidth=1.2, linestyle=style, label=f"{label}: {level:.3f}")


def cost_scatter(predicted: Sequence[float], true: Sequence[float]) -> bytes:
    """Draw predicted against true clicks of regions, with the diagonal on which the two agree.

    Regions without a finite prediction are left out. Both axes are logarithmic where all values are positive and span
    a factor of 20 or more.
    """
    pairs = np.array([p for p in zip(true, predicted, strict=True) if math.isfinite(p[1])], np.float64).reshape(-1, 2)
    figure = Figure(figsize=(4.6, 4.6), dpi=DPI, layout="constrained")
    axes = figure.subplots()
    log = len(pairs) > 0 and pairs.min() > 0 and pairs.max() >= 20 * pairs.min()
    limits = _limits(pairs, log)
    axes.plot(limits, limits, color="0.35", linewidth=1.2, linestyle="--", zorder=1)
    axes.scatter(pairs[:, 0], pairs[:, 1], s=26, color=COLOURS[0], alpha=0.65, linewidths=0, zorder=2)
    scale = "log" if log else "linear"
    axes.set(xscale=scale, yscale=scale, xlim=limits, ylim=limits, aspect="equal")
    axes.set_xlabel("true clicks of a region", fontsize=NORMAL)
    axes.set_ylabel("predicted clicks", fontsize=NORMAL)
    axes.set_title(f"sum: {clicks(pairs[:, 1].sum())} predicted, {clicks(pairs[:, 0].sum())} true", fontsize=NORMAL)
    tidy(axes)
    return png_of(figure)


def _limits(pairs: np.ndarray, log: bool) -> tuple[float, float]:
    if log:
        return float(pairs.min()) / 1.3, float(pairs.max()) * 1.3
    low, high = (float(pairs.min()), float(pairs.max())) if len(pairs) else (0.0, 1.0)
    margin = 0.06 * max(high - min(low, 0.0), 1.0)
    return min(low, 0.0) - margin, high + margin


def calibration_plot(samples: Sequence[CostSample]) -> bytes:
    """Draw mean predicted against mean true clicks of equally large bins of regions, a panel for each sample.

    A predictor that is right on average lies on the diagonal wherever it predicts. A panel without regions stays empty.
    """
    figure = Figure(figsize=(9, 4.6), dpi=DPI, layout="constrained")
    panels = figure.subplots(1, len(samples), squeeze=False)[0]
    for axes, sample in zip(panels, samples, strict=True):
        _calibration_panel(axes, sample)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    return png_of(figure)


def _calibration_panel(axes: Axes, sample: CostSample) -> None:
    lines = {name: calibration(predicted, sample.true, MOST_BINS) for name, predicted in sample.predicted.items()}
    limits = _limits(np.concatenate(list(lines.values())), log=False)
    axes.plot(limits, limits, color="0.35", linewidth=1.2, linestyle="--")
    for (name, line), colour, marker in zip(lines.items(), COLOURS, MARKERS, strict=False):
        axes.plot(line[:, 1], line[:, 0], color=colour, marker=marker, label=PREDICTOR_NAMES[name])
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set_title(f"{sample.name} ({len(sample.true):,})", fontsize=NORMAL)
    axes.set_xlabel("mean true clicks", fontsize=NORMAL)
    axes.set_ylabel("mean predicted clicks", fontsize=NORMAL)
    tidy(axes)


def region_picture(view: RegionView) -> bytes:
    """Draw one region: its image, the region alone, and the maps it was chosen by, with its box in each.

    Axes are in pixels of the image. Left out are maps that are None, and the region alone where it is the whole image.
    """
    maps = list(_maps(view))
    height, width = view.image.shape[:2]
    is_part = view.query.box != Box(0, 0, height, width)
    panels = 1 + is_part + len(maps)
    rows, columns = (2, 2) if panels == 4 else (1, panels)
    aspect = min(max(height / width, 0.4), 1.2)
    figure = _framed(rows, columns, 4.0, 0.25 + 3.5 * aspect)
    whole, *rest = figure.subplots(rows, columns, squeeze=False).flat
    whole.imshow(view.image, extent=(0, width, height, 0))
    _panel(whole, "image", (height, width), view.query.box)
    if is_part:
        _crop_panel(rest.pop(0), view)
    for axes, (cells, colours, title) in zip(rest, maps, strict=True):
        _map_panel(axes, cells, colours)
        _panel(axes, title, (height, width), view.query.box)
    figure.suptitle(_region_title(view), fontsize=LARGE, parse_math=False)
    return png_of(figure, view)


def _framed(rows: int, columns: int, width: float, height: float) -> Figure:
    """Return a figure for so many panels of so many inches, with room for ticks and titles.

    Its margins are fixed: Matplotlib's constrained layout takes as long as all the drawing.
    """
    size = columns * width, rows * height + TITLE_INCHES
    figure = Figure(figsize=size, dpi=DPI)
    figure.subplots_adjust(
        left=0.45 / size[0],
        right=1 - 0.5 / size[0],
        bottom=0.3 / size[1],
        top=1 - (TITLE_INCHES + 0.25) / size[1],
        wspace=0.8 / width,
        hspace=0.55 / height,
    )
    return figure


def _maps(view: RegionView) -> Iterator[tuple[np.ndarray, Colormap, str]]:
    if view.information is not None:
        unit = f", {view.unit}" if view.unit else ""
        title = f"information{unit} per cell; {view.query.information:.1f} in the box"
        yield view.information, INFORMATION_COLOURS, title
    if view.cost is not None:
        kind = "predicted" if math.isfinite(view.query.predicted_clicks) else "true"
        yield view.cost, COST_COLOURS, f"{kind} cost, clicks per cell"


def _region_title(view: RegionView) -> str:
    query = view.query
    name = query.image_id if len(query.image_id) <= 70 else f"{query.image_id[:34]}…{query.image_id[-34:]}"
    return f"{name}\n{place_of(query)}; score {query.score:.3f}; {clicks_of(query)}"


def _crop_panel(axes: Axes, view: RegionView) -> None:
    box = view.query.box
    axes.imshow(view.image[box.slices], extent=(box.x, box.x + box.width, box.y + box.height, box.y))
    _panel(axes, "region")


def _map_panel(axes: Axes, cells: np.ndarray, colours: Colormap) -> None:
    rows, columns = cells.shape
    extent = (0, columns * STRIDE_PX, rows * STRIDE_PX, 0)
    shown = axes.imshow(cells, cmap=colours, extent=extent, interpolation="nearest")
    bar = axes.figure.colorbar(shown, ax=axes, fraction=0.045, pad=0.02)
    bar.ax.tick_params(labelsize=SMALL)
    bar.outline.set_visible(False)


def _panel(axes: Axes, title: str, shape: tuple[int, int] | None = None, box: Box | None = None) -> None:
    axes.set_title(title, fontsize=NORMAL, loc="left")
    axes.tick_params(labelsize=SMALL, length=2, color="0.5")
    axes.locator_params(nbins=5)
    axes.spines[:].set_visible(False)
    if shape is not None:
        axes.set(xlim=(0, shape[1]), ylim=(shape[0], 0))
    if box is not None:
        outline = Rectangle((box.x, box.y), box.width, box.height, fill=False, edgecolor="white", linewidth=1.6)
        outline.set_path_effects([withStroke(linewidth=3.6, foreground="black")])
        axes.add_patch(outline)


def round_pictures(facts: RoundFacts, views: Sequence[RegionView], reference: float | None = None) -> dict[str, bytes]:
    """Draw a round's pictures by the names that its pages know them by.

    They are `curve`; `cost` if any click was predicted; `calibration` if there are samples of predicted cost; and
    `region-1`, `region-2`, ... of `views`, which are of the first regions in `facts.queries`, in that order.
    """
    pictures = {"curve": curve({campaign_title(facts.campaign, facts.upper_bound): facts.points}, reference)}
    predicted = [query.predicted_clicks for query in facts.queries]
    if any(math.isfinite(value) for value in predicted):
        pictures["cost"] = cost_scatter(predicted, [query.vertices for query in facts.queries])
    if facts.cost_samples:
        pictures["calibration"] = calibration_plot(facts.cost_samples)
    return pictures | {f"region-{index}": region_picture(view) for index, view in enumerate(views, 1)}


def tidy(axes: Axes) -> None:
    """Give axes the look of all figures here."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=SMALL)


def png_of(figure: Figure, view: RegionView | None = None) -> bytes:
    """Encode a figure as PNG with a palette.

    The photograph of `view` gets as few of its colours as keep the file in MAX_PNG_BYTES.
    """
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    if view is None:
        return _encode(picture.quantize(256))
    for photo_colours in (112, 56, 28, 14):
        palette = Image.new("P", (1, 1))
        palette.putpalette(_palette(view, photo_colours).tobytes())
        png = _encode(picture.quantize(palette=palette, dither=Image.Dither.NONE))
        if len(png) <= MAX_PNG_BYTES:
            break
    return png


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def _palette(view: RegionView, photo_colours: int) -> np.ndarray:
    """Choose colours uint8 (N, 3): both maps' own, so that maps keep theirs, greys for text, and the photograph's."""
    maps = [(colours(np.arange(colours.N))[:, :3] * 255).round() for colours in (INFORMATION_COLOURS, COST_COLOURS)]
    greys = np.repeat(np.linspace(0, 255, 32).round()[:, None], 3, axis=1)
    pixels = np.concatenate([view.image.reshape(-1, 3), view.image[view.query.box.slices].reshape(-1, 3)])
    photo = Image.fromarray(pixels[None]).quantize(photo_colours).getpalette() or []
    return np.concatenate([*maps, greys, np.reshape(photo, (-1, 3))]).astype(np.uint8)
