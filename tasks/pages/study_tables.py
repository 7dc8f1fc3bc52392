"""Rows of a study's tables, with their numbers in words."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from cereals_core.curves import AXES
from cereals_core.study_statistics import (
    Arm,
    ArmResult,
    Run,
    StudyFacts,
    class_spreads,
    compare,
    shares_to_reach,
)
from cereals_core.uncertainty import Paired, Spread
from tasks.pages.study_wording import FULL_SHADE_IOU, interval_words, p_value, reach_words, spread_words
from tasks.pages.wording import ABSENT, clicks, number, share, signed

EVERY_LABEL = "every label"
STRATEGY_HEADER = ("p95, clicks", "p95, pixels", "AUC", "final mIoU", "clicks", "ended")
PAIRED_HEADER = ("difference", "pairs", "t test p", "sign-flip p")
RUN_HEADER = ("seed", "round", "mIoU", "clicks", "of all", "pixels", "of all", "p95, clicks", "p95, pixels")


class Row(NamedTuple):
    """One line of a table: a strategy, whether it is an upper bound, its numbers, and how it is defined."""

    name: str
    upper_bound: bool
    cells: Sequence[str]
    definition: str = ""


def strategy_rows(facts: StudyFacts, results: Sequence[ArmResult]) -> list[Row]:
    """Return a row for each strategy under STRATEGY_HEADER; the full-label reference is last if there is one."""
    rows = [Row(result.arm.name, result.arm.upper_bound, _cells(result), result.arm.definition) for result in results]
    full = facts.full_miou
    if full.n:
        cells = [ABSENT, ABSENT, ABSENT, spread_words(full), clicks(facts.full_clicks), _ended(facts.reference)]
        rows.append(Row(EVERY_LABEL, False, cells, "the whole pool labelled: the reference"))
    return rows


def _cells(result: ArmResult) -> list[str]:
    return [
        reach_words(result.reach["clicks"], result.arm.runs) + interval_words(result.reach["clicks"]),
        reach_words(result.reach["pixels"], result.arm.runs),
        number(result.area.mean),
        spread_words(result.final_miou),
        clicks(round(result.final_clicks.mean)) if result.final_clicks.n else ABSENT,
        _ended(result.arm.runs),
    ]


def _ended(runs: Sequence[Run]) -> str:
    return f"{sum(run.ended for run in runs)}/{len(runs)}"


def paired_rows(facts: StudyFacts) -> list[Row]:
    """Return a row for each strategy less the baseline: PAIRED_HEADER for the AUC, then for the final mIoU.

    No rows without a baseline or a second strategy.
    """
    baseline = facts.baseline
    found = [compare(arm, baseline, facts) for arm in facts.arms if baseline is not None and arm is not baseline]
    return [
        Row(each.arm.name, each.arm.upper_bound, [*_paired_cells(each.area), *_paired_cells(each.final_miou)])
        for each in found
    ]


def _paired_cells(found: Paired) -> list[str]:
    limits = f" [{signed(found.low)}, {signed(found.high)}]" if found.n > 1 else ""
    return [signed(found.difference) + limits, str(found.n), p_value(found.t_p), p_value(found.flip_p)]


def run_rows(facts: StudyFacts) -> list[Row]:
    """Return a row for each started campaign under RUN_HEADER: its latest round, and when it reached the goal."""
    return [
        Row(arm.name, arm.upper_bound, _run_cells(arm, run, facts))
        for arm in facts.arms
        for run in arm.runs
        if run.points
    ]


def _run_cells(arm: Arm, run: Run, facts: StudyFacts) -> list[str]:
    point = run.points[-1]
    state = "" if run.ended else ", running"
    return [
        str(run.seed),
        f"{point.round}{state}",
        number(point.miou),
        clicks(point.clicks),
        share(point.clicks, facts.full_clicks),
        f"{point.pixels:,}",
        share(point.pixels, facts.full_pixels),
        *(_reached(shares_to_reach(arm, facts, axis).get(run.seed)) for axis in AXES),
    ]


def _reached(value: float | None) -> str:
    return ABSENT if value is None else share(value, 1)


class ClassCell(NamedTuple):
    """IoU of one class by one strategy, and its shade from -1 (worse than the baseline) to 1 (better)."""

    mean: str
    std: str
    shade: float


def class_table(facts: StudyFacts) -> dict[str, list[ClassCell]]:
    """Return for each class a cell for each strategy, and one for the full-label reference if there is one.

    The shade is the difference from the baseline over FULL_SHADE_IOU, cut to [-1, 1]; 0 where one of both is missing.
    """
    columns = [class_spreads(arm.runs) for arm in facts.arms]
    if facts.full_miou.n:
        columns.append(class_spreads(facts.reference))
    baseline = class_spreads(facts.baseline.runs) if facts.baseline else {}
    names = dict.fromkeys(name for column in columns for name in column)
    return {name: [_class_cell(column.get(name), baseline.get(name)) for column in columns] for name in names}


def _class_cell(found: Spread | None, baseline: Spread | None) -> ClassCell:
    if found is None or not found.n:
        return ClassCell(ABSENT, "", 0.0)
    gain = found.mean - baseline.mean if baseline is not None and baseline.n else 0.0
    shade = math.copysign(min(abs(gain) / FULL_SHADE_IOU, 1.0), gain)
    return ClassCell(number(found.mean), f"± {number(found.std)}" if found.n > 1 else "", shade)
