"""Statistics of a study: strategies run with several seeds, compared by what they reach and what that costs.

Campaigns of equal seed share their seed set, so strategies are compared seed by seed. A statistic that is not defined
is NaN, never 0; a share that was not reached is None.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cereals_core.curves import AXES, Axis, Point, area_under_curve, common_range, curve_of, spend_to_reach
from cereals_core.errors import DataError
from cereals_core.seeding import rng
from cereals_core.uncertainty import RESAMPLES, Paired, Spread, bootstrap_interval, paired, spread

BASELINE = "random-regions"
TARGET = 0.95
"""Share of the full-label mIoU that a strategy is asked to reach."""


@dataclass(frozen=True)
class Run:
    """One campaign of a study, as far as it has come.

    `points`: of its rounds, none if it has not started; `class_iou`: of its last round, NaN for a class that the
    evaluation split does not hold; `ended`: False while rounds are still to come, and then nothing that is told of last
    rounds counts it.
    """

    seed: int
    points: Sequence[Point] = ()
    class_iou: Mapping[str, float] = field(default_factory=dict)
    ended: bool = True

    @property
    def last(self) -> Point | None:
        """The point of the last round; None before the campaign has ended."""
        return max(self.points, key=lambda point: point.round) if self.ended and self.points else None


@dataclass(frozen=True)
class Arm:
    """One strategy and its campaigns, at most one for each seed; `upper_bound`: it saw the true clicks of the pool."""

    name: str
    definition: str
    upper_bound: bool
    runs: Sequence[Run]


@dataclass(frozen=True)
class Repeat:
    """One strategy run twice with the same seed: differences between results that should not differ at all."""

    arm: str
    first: Run
    second: Run


@dataclass(frozen=True)
class StudyFacts:
    """A whole study, or what there is of one.

    `arms`: names differ; `reference`: for each seed the model trained with every label, its mIoU being that of its last
    point; `full_clicks`, `full_pixels`: what labelling the whole pool costs, above 0, and `full_crossings`,
    `full_components` beside its clicks; `settings`: the study's file.
    """

    name: str
    arms: Sequence[Arm]
    reference: Sequence[Run]
    full_clicks: float
    full_pixels: int
    settings: str
    repeat: Repeat | None = None
    full_crossings: int = 0
    full_components: int = 0

    def __post_init__(self) -> None:
        if not (self.full_clicks > 0 and self.full_pixels > 0):
            raise DataError(
                f"labelling the whole pool costs {self.full_clicks} clicks and {self.full_pixels} pixels; expected "
                "more than 0 of both, to take shares of; check the labels of the data set"
            )

    @property
    def baseline(self) -> Arm | None:
        """The strategy that others are compared with: BASELINE if it is there, else the first; None without any."""
        return next((arm for arm in self.arms if arm.name == BASELINE), self.arms[0] if self.arms else None)

    @property
    def full_miou(self) -> Spread:
        """The mIoU of the model trained with every label, over seeds."""
        return spread(final_mious(self.reference).values())

    def full_spend(self, axis: Axis) -> float:
        """Return what the whole pool costs, as `Axis` counts it."""
        whole = Point(0, math.nan, self.full_clicks, self.full_pixels, self.full_crossings, self.full_components)
        return float(getattr(whole, axis))


def final_mious(runs: Iterable[Run]) -> dict[int, float]:
    """Return the mIoU of the last round by seed, of campaigns that ended with one."""
    return {run.seed: run.last.miou for run in runs if run.last is not None and math.isfinite(run.last.miou)}


def shares_to_reach(arm: Arm, facts: StudyFacts, axis: Axis, target: float = TARGET) -> dict[int, float | None]:
    """Return by seed the share of the full clicks or pixels at which `target` of the full-label mIoU is reached.

    p = min {spend : mIoU(spend) >= target * mIoU_full} / full spend, in [0, 1], against the full-label model of the
    same seed; None says "not reached", or not yet if the campaign still runs. Seeds without a reference and campaigns
    without a round are left out. p95 is the measure of Mackowiak et al. 2018; taking the reference of the same seed is
    our choice.
    """
    shares: dict[int, float | None] = {}
    references = final_mious(facts.reference)
    for run in arm.runs:
        if run.seed in references and run.points:
            spend = spend_to_reach(curve_of(run.points, axis), target * references[run.seed])
            shares[run.seed] = None if spend is None else spend / facts.full_spend(axis)
    return shares


@dataclass(frozen=True)
class Reach:
    """Spend that a strategy needs to reach the target, over seeds.

    `seeds`: how many have tried; `shares`: of those that reached it, ascending. Mean and bootstrap interval are NaN
    unless all reached it; the interval needs 2 seeds.
    """

    seeds: int
    shares: tuple[float, ...]
    mean: float
    low: float
    high: float

    @property
    def all_reached(self) -> bool:
        """Whether every seed reached the target, and there is one."""
        return 0 < self.seeds == len(self.shares)


def reach(shares: Iterable[float | None], generator: np.random.Generator, resamples: int = RESAMPLES) -> Reach:
    """Sum up what `shares_to_reach` gives for one strategy.

    The mean of those seeds alone that reached the target would flatter, so there is none if one did not (our choice).
    """
    known = list(shares)
    reached = sorted(share for share in known if share is not None)
    if not known or len(reached) < len(known):
        return Reach(len(known), tuple(reached), math.nan, math.nan, math.nan)
    values = np.array(reached)
    return Reach(len(known), tuple(reached), float(values.mean()), *bootstrap_interval(values, generator, resamples))


def areas(arm: Arm, facts: StudyFacts, axis: Axis) -> dict[int, float]:
    """Return `area_under_curve` by seed, over the range shared by all ended campaigns of that seed, of any strategy.

    Seeds are left out where that range is empty, or where a campaign does not yet cover it. Areas of one seed are
    comparable; those of different seeds span slightly different ranges, so compare them in pairs.
    """
    made = {}
    for run in arm.runs:
        limits = shared_range(facts, run.seed, axis)
        if limits is not None:
            made[run.seed] = area_under_curve(curve_of(run.points, axis), *limits)
    return {seed: area for seed, area in made.items() if math.isfinite(area)}


def shared_range(facts: StudyFacts, seed: int, axis: Axis) -> tuple[float, float] | None:
    """Return the `common_range` of all campaigns of a seed that have ended."""
    runs = [run for arm in facts.arms for run in arm.runs if run.seed == seed and run.last is not None]
    return common_range([curve_of(run.points, axis) for run in runs])


def class_spreads(runs: Iterable[Run]) -> dict[str, Spread]:
    """Describe the IoU of each class after the last round, over the seeds whose evaluation holds the class.

    Ended campaigns only.
    """
    ended = [run.class_iou for run in runs if run.last is not None]
    names = dict.fromkeys(name for classes in ended for name in classes)
    return {name: spread(classes.get(name, math.nan) for classes in ended) for name in names}


def noise_floor(first: Run, second: Run) -> Spread:
    """Describe by how much two runs differ in mIoU, over the rounds that both have: `mean`, and `high` at most.

    Differences are absolute.
    """
    earlier = {point.round: point.miou for point in first.points}
    return spread(abs(point.miou - earlier.get(point.round, math.nan)) for point in second.points)


@dataclass(frozen=True)
class ArmResult:
    """Results of one strategy: shares by seed for both axes, their summaries, and its ended campaigns over seeds."""

    arm: Arm
    shares: Mapping[Axis, Mapping[int, float | None]]
    reach: Mapping[Axis, Reach]
    area: Spread
    final_miou: Spread
    final_clicks: Spread


def arm_result(arm: Arm, facts: StudyFacts) -> ArmResult:
    """Sum up one strategy; `area` is against clicks.

    Bootstrap streams are named by strategy and axis.
    """
    shares = {axis: shares_to_reach(arm, facts, axis) for axis in AXES}
    return ArmResult(
        arm,
        shares,
        {axis: reach(shares[axis].values(), rng(0, "study-reach", arm.name, axis)) for axis in AXES},
        spread(areas(arm, facts, "clicks").values()),
        spread(final_mious(arm.runs).values()),
        spread(run.last.clicks for run in arm.runs if run.last is not None),
    )


@dataclass(frozen=True)
class Comparison:
    """A strategy less the baseline, in pairs of equal seed: area under mIoU against clicks, and final mIoU."""

    arm: Arm
    area: Paired
    final_miou: Paired


def compare(arm: Arm, baseline: Arm, facts: StudyFacts) -> Comparison:
    """Compare two strategies of a study; bootstrap streams are named by the strategy and by what is compared."""
    pairs = (areas(arm, facts, "clicks"), areas(baseline, facts, "clicks"))
    finals = (final_mious(arm.runs), final_mious(baseline.runs))
    return Comparison(
        arm, paired(*pairs, rng(0, "study-area", arm.name)), paired(*finals, rng(0, "study-final", arm.name))
    )
