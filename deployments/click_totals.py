"""The clicks of a data set, counted split by split and told in a few lines."""

from collections import Counter
from collections.abc import Iterator
from textwrap import indent

from cereals_core.data_settings import MasksData, SyntheticData
from cereals_core.datasets import open_truth
from cereals_core.datasets.click_totals import ClickTotals, count_clicks, quantiles
from cereals_core.errors import SettingsError
from cereals_core.settings import CampaignSettings
from tasks.examination import SPLITS
from tasks.pages.text import table
from tasks.pages.wording import clicks
from tasks.telling.progress import track


def show_clicks(settings: CampaignSettings, window_px: int | None, traced: bool) -> Iterator[str]:
    """Count both splits and describe each; SettingsError if masks, whose clicks are traced, are to be traced."""
    data = settings.data
    if traced and isinstance(data, MasksData):
        raise SettingsError('data.format = "masks" has no polygons to compare with; leave out --traced')
    unscaled = data if isinstance(data, SyntheticData) else data.model_copy(update={"scale": 1.0})
    for split in SPLITS:
        dataset, full_size = open_truth(data, split), open_truth(unscaled, split) if traced else None
        with track(f"clicks {split}", len(dataset.image_ids), "images") as advance:
            totals = count_clicks(dataset, full_size, window_px, advance, settings.compute.cpu_threads)
        yield "\n".join([f"{split}: {totals.images:,} images", *_lines(totals, window_px, traced)])


def _lines(totals: ClickTotals, window_px: int | None, traced: bool) -> Iterator[str]:
    vertices, crossings, components = totals.vertices, totals.crossings, totals.components
    counts = {
        "vertices (c_p)": vertices,
        "+ crossings (c_p + c_i)": vertices + crossings,
        "+ components (c_p + c_i + c_c)": vertices + crossings + components,
        "components (c_c)": components,
    }
    rows = [[name, clicks(count), clicks(count / totals.images)] for name, count in counts.items()]
    yield indent(table(["", "in all", "an image"], rows, "left"), "  ").rstrip()
    if window_px is not None:
        yield f"  vertices of a region of {window_px} px: {_regions(totals.regions)}"
    if traced:
        yield f"  vertices traced from the labels at full size: {clicks(totals.traced)}, {_traced(totals)}"


def _regions(regions: Counter[float]) -> str:
    if not regions:
        return "none fits into an image"
    mean = sum(value * count for value, count in regions.items()) / regions.total()
    low, median, high = map(clicks, quantiles(regions, (0.25, 0.5, 0.75)))
    return f"mean {clicks(mean)}, median {median}, quartiles {low} and {high}, of {regions.total():,}"


def _traced(totals: ClickTotals) -> str:
    if not totals.traced_shares:
        return "and no polygon to compare with"
    shares = quantiles(Counter(totals.traced_shares), (0.5, 0.25, 0.75, 0.05, 0.95))
    median, low, high, least, most = (f"{share:.3f}" for share in shares)
    return (
        f"{totals.traced / totals.vertices:.3f} of the polygons'\n    of an image: median {median}, "
        f"quartiles {low} and {high}, 5 and 95 %: {least} and {most}"
    )
