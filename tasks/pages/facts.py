"""What a report is told: facts of a round, filled in by the caller; nothing here opens a file."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cereals_core.curves import Point
from cereals_core.evaluation import CostAgreement, cost_agreement
from cereals_core.grid import Box


@dataclass(frozen=True)
class StageFacts:
    """One stage of a round: how long it ran, what it wrote, the process's peak memory meanwhile, and a remark.

    `ran_on`: host and device, empty if unknown.
    """

    name: str
    elapsed_s: float
    bytes: int
    peak_bytes: int
    note: str = ""
    ran_on: str = ""


@dataclass(frozen=True)
class QueryFacts:
    """One region that the oracle answered.

    `score`: fused score; `information`: sum over the region's cells, in the measure's unit; `predicted_clicks`:
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

    `information`: in `unit` per cell, None where regions are drawn at random; `cost`: clicks per cell, predicted ones
    if the query's are known and else true ones (an upper bound), None where regions were chosen without cost.
    """

    query: QueryFacts
    image: np.ndarray
    information: np.ndarray | None
    cost: np.ndarray | None
    unit: str = ""


@dataclass(frozen=True, eq=False)
class CostSample:
    """Regions whose cost was predicted and then learned, `name` being one of `cost_baselines.SAMPLES`.

    `true`: clicks (c_p), float64 (n,); `predicted`: for each of `cost_baselines.PREDICTORS` what it made of them,
    float64 (n,), in clicks.
    """

    name: str
    true: np.ndarray
    predicted: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class RoundFacts:
    """One round: training, evaluation, and the regions that were asked for afterwards.

    `points`: one or more, of all rounds so far, this one last; `class_iou`: NaN for a class absent from the evaluation
    split; `queries`: best first, none in the last round; `images_touched`: pool images with a labelled pixel when the
    round's model was trained; `stop_reason`: why nothing more is asked, a clause without a full stop; `unit`: what a
    query is, "region" or "image"; `upper_bound`: whether regions are chosen by the true clicks of the pool;
    `cost_samples`: none where no cost is learned; `rounds`: how many rounds of queries are planned, None if unknown;
    `images_in_both`: images for evaluation that are in the pool too; `correction`: true clicks for each one predicted
    in the rounds before, None where no cost is learned or nothing was asked before; `steps`, `epochs`: of the round's
    training, 0 if unknown; `was_cut`: whether its limit ended it before it had converged;
    `links`: addresses of further pages by what they are called.
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
    unit: str = "region"
    upper_bound: bool = False
    cost_samples: Sequence[CostSample] = ()
    rounds: int | None = None
    target_miou: float | None = None
    images_in_both: int = 0
    correction: float | None = None
    steps: int = 0
    epochs: int = 0
    was_cut: bool = False
    links: Mapping[str, str] = field(default_factory=dict)

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

    @property
    def asked_pixels(self) -> int:
        """Pixels of the regions asked for in this round."""
        return sum(query.box.pixels for query in self.queries)

    @property
    def clicks_so_far(self) -> float:
        """True clicks of everything asked for until now."""
        return self.point.clicks + self.asked_clicks

    @property
    def rounds_asked(self) -> int:
        """Rounds of queries until now, this one included if it asked."""
        return self.point.round + bool(self.queries)


def query_agreement(queries: Sequence[QueryFacts]) -> CostAgreement | None:
    """Compare predicted and true clicks of regions; None if none was predicted."""
    predicted = np.array([query.predicted_clicks for query in queries], np.float64)
    agreement = cost_agreement(predicted, np.array([query.vertices for query in queries], np.float64))
    return agreement if agreement.regions else None
