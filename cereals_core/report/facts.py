"""What a report is told: facts of a round, filled in by the caller; nothing here opens a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cereals_core.grid import Box


@dataclass(frozen=True)
class Point:
    """One point of a learning curve: the model of a round, and what the labels it was trained on had cost.

    `miou`: in [0, 1]; `clicks`: true clicks (polygon vertices) so far; `pixels`: labelled pixels so far.
    """

    round: int
    miou: float
    clicks: float
    pixels: int


@dataclass(frozen=True)
class StageFacts:
    """One stage of a round: whether it ran or was found on disk, for how long, what it wrote, and a remark."""

    name: str
    state: Literal["done", "reused"]
    elapsed_s: float
    bytes: int
    note: str = ""


@dataclass(frozen=True)
class QueryFacts:
    """One region that the oracle answered.

    `score`: fused score; `information`: sum over the region's cells, in nats for both entropies; `predicted_clicks`:
    sum of the cost map over them, NaN without a cost model; `vertices`, `crossings`, `components`: the true costs.
    """

    image_id: str
    box: Box
    score: float
    information: float
    predicted_clicks: float
    vertices: float
    crossings: int
    components: int


@dataclass(frozen=True, eq=False)
class RegionView:
    """A region and what was seen of its image: `image` uint8 (H, W, 3), maps float32 (ceil(H / 8), ceil(W / 8)).

    `information`: nats per cell, None where regions are drawn at random; `cost`: predicted clicks per cell, None
    without a cost model.
    """

    query: QueryFacts
    image: np.ndarray
    information: np.ndarray | None
    cost: np.ndarray | None


@dataclass(frozen=True)
class RoundFacts:
    """One round: training, evaluation, and the regions that were asked for afterwards.

    `points`: one or more, of all rounds so far, this one last; `class_iou`: NaN for a class absent from the evaluation
    split; `queries`: best first, none in the last round; `images_touched`: pool images with a labelled pixel when the
    round's model was trained; `stop_reason`: why nothing more is asked, a clause without a full stop.
    """

    campaign: str
    points: Sequence[Point]
    class_iou: Mapping[str, float]
    stages: Sequence[StageFacts]
    queries: Sequence[QueryFacts]
    pool_images: int
    pool_pixels: int
    images_touched: int
    budget_clicks: float | None = None
    stop_reason: str | None = None
    flow_run_url: str | None = None

    @property
    def point(self) -> Point:
        """This round's point of the curve."""
        return self.points[-1]

    @property
    def gain(self) -> float:
        """Rise of the mIoU since the round before; NaN in the first."""
        return self.points[-1].miou - self.points[-2].miou if len(self.points) > 1 else math.nan

    @property
    def asked_clicks(self) -> float:
        """True clicks (polygon vertices) of the regions asked for in this round."""
        return sum(query.vertices for query in self.queries)


@dataclass(frozen=True)
class CostFit:
    """How well clicks of `regions` were predicted: sums, mean absolute error, all in clicks.

    `correlation`: Pearson's; NaN for a single region, or where either side does not vary.
    """

    regions: int
    predicted: float
    true: float
    mean_error: float
    correlation: float


def cost_fit(predicted: Sequence[float], true: Sequence[float]) -> CostFit | None:
    """Compare predicted with true clicks of the same regions, where a prediction is finite; None if there is none."""
    pairs = np.array([pair for pair in zip(predicted, true, strict=True) if math.isfinite(pair[0])], np.float64)
    if not len(pairs):
        return None
    varied = bool(np.all(pairs.max(axis=0) > pairs.min(axis=0)))
    return CostFit(
        regions=len(pairs),
        predicted=float(pairs[:, 0].sum()),
        true=float(pairs[:, 1].sum()),
        mean_error=float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()),
        correlation=float(np.corrcoef(pairs[:, 0], pairs[:, 1]).flat[1]) if varied else math.nan,
    )


def query_fit(queries: Sequence[QueryFacts]) -> CostFit | None:
    """`cost_fit` of the regions of one round."""
    return cost_fit([query.predicted_clicks for query in queries], [query.vertices for query in queries])
