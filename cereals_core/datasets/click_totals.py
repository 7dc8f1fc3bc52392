"""What a whole split costs in clicks: in all, by region, and beside what tracing its labels would have estimated."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from cereals_core.clicks import RegionCost, region_cost
from cereals_core.data_settings import MasksData
from cereals_core.datasets.base import Dataset
from cereals_core.datasets.masks import trace_clicks
from cereals_core.grid import Box

_EPSILON_PX: float = MasksData.model_fields["contour_epsilon_px"].default
_SPECK_PX: int = MasksData.model_fields["speck_px"].default


@dataclass
class ClickTotals:
    """Clicks of the images counted so far, each image taken as one region; its memory does not grow with them."""

    images: int = 0
    vertices: float = 0.0
    """c_p: polygon vertices, by their weights."""
    crossings: int = 0
    """c_i: class changes along the images' borders."""
    components: int = 0
    """c_c: connected components of a class, void being one."""
    regions: Counter[float] = field(default_factory=Counter)
    """How many regions hold each number of vertices (c_p)."""
    traced: float = 0.0
    """Vertices that tracing the labels gives, by their weights."""
    traced_shares: list[float] = field(default_factory=list)
    """Traced vertices over the polygons', image by image; images without a polygon have no such share."""

    def add(self, cost: RegionCost, regions: Sequence[float], traced: float | None) -> None:
        """Add one image: its cost as a whole, the vertices of its regions, and those traced (None: not traced)."""
        self.images += 1
        self.vertices += cost.vertices
        self.crossings += cost.crossings
        self.components += cost.components
        self.regions.update(regions)
        if traced is not None:
            self.traced += traced
            self.traced_shares.extend([traced / cost.vertices] if cost.vertices else [])


def count_clicks(
    dataset: Dataset, full_size: Dataset | None, window_px: int | None, on_image: Callable[[], None], threads: int
) -> ClickTotals:
    """Count the clicks of every image of a split, `threads` images at a time; DataError names a broken file.

    `full_size`: the same split unscaled, whose labels are traced with the defaults of `MasksData`, or None: scaled
    labels have lost the outlines that an annotator followed. `window_px`: side of the regions of `grid_regions`, or
    None. `on_image` is called after each image, by the caller's thread.
    """

    def count(image_id: str) -> tuple[RegionCost, list[float], float | None]:
        truth = dataset.truth(image_id)
        height, width = truth.labels.shape
        regions = grid_regions(height, width, window_px) if window_px is not None else ()
        return (
            region_cost(truth, Box(0, 0, height, width)),
            [region_cost(truth, box).vertices for box in regions],
            None if full_size is None else _traced_clicks(full_size.truth(image_id).labels),
        )

    totals = ClickTotals()
    with ThreadPoolExecutor(threads) as pool:
        for counted in pool.map(count, dataset.image_ids):
            totals.add(*counted)
            on_image()
    return totals


def _traced_clicks(labels: np.ndarray) -> float:
    return float(trace_clicks(labels, _EPSILON_PX, _SPECK_PX)[:, 2].sum(dtype=np.float64))


def grid_regions(height: int, width: int, window_px: int) -> Iterator[Box]:
    """Yield square regions side by side from the upper left corner, wholly in an image of `height` x `width` px."""
    for y in range(0, height - window_px + 1, window_px):
        for x in range(0, width - window_px + 1, window_px):
            yield Box(y, x, window_px, window_px)


def quantiles(counts: Counter[float], shares: Sequence[float]) -> list[float]:
    """Return for each share in [0, 1] the smallest value that at least that share of the counts does not exceed.

    `counts` says how often each value occurs; it must not be empty.
    """
    values, weights = np.array(list(counts)), np.array(list(counts.values()))
    return [float(value) for value in np.quantile(values, shares, weights=weights, method="inverted_cdf")]
