"""From the tables of a study to the facts that its pages tell."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cereals_core.curves import Point
from cereals_core.errors import DataError
from cereals_core.study_settings import FULL_LABELS, REPEATED
from cereals_core.study_statistics import Arm, Repeat, Run, StudyFacts

Row = Mapping[str, Any]


class Described(NamedTuple):
    """How an arm is defined, and whether it saw the true clicks of the pool."""

    definition: str
    upper_bound: bool


def facts_of(
    name: str,
    arms: Mapping[str, Described],
    seeds: Sequence[int],
    points: Sequence[Row],
    classes: Sequence[Row],
    settings: str = "",
    repeat: bool = True,
) -> StudyFacts:
    """Make the facts of a study from rows of RESULTS and CLASS_RESULTS; DataError without a reference.

    `arms` and `seeds` are those that are meant, whether or not there is a row of them.
    """

    def run(arm: str, seed: int) -> Run:
        return _run(seed, [each for each in points if (each["arm"], each["seed"]) == (arm, seed)], arm, classes)

    reference, first = [run(FULL_LABELS, seed) for seed in seeds], next(iter(arms))
    whole = next((each.points[-1] for each in reference if each.points), None)
    if whole is None:
        raise DataError(f"{name}: no model has been trained with every label yet; `cereals study` begins with one")
    return StudyFacts(
        name=name,
        arms=[Arm(arm, *described, [run(arm, seed) for seed in seeds]) for arm, described in arms.items()],
        reference=reference,
        full_clicks=whole.clicks,
        full_pixels=whole.pixels,
        settings=settings,
        repeat=Repeat(first, run(first, seeds[0]), run(REPEATED, seeds[0])) if repeat else None,
        full_crossings=whole.crossings,
        full_components=whole.components,
    )


def facts_from(name: str, points: Sequence[Row], classes: Sequence[Row]) -> StudyFacts:
    """Make the facts of a study from its tables alone: of the arms and seeds that they hold."""
    described = {row["arm"]: Described(row["definition"], row["upper_bound"]) for row in points}
    arms = {arm: each for arm, each in described.items() if arm not in (FULL_LABELS, REPEATED)}
    seeds = sorted({row["seed"] for row in points})
    return facts_of(name, arms, seeds, points, classes, repeat=REPEATED in described)


def _run(seed: int, rows: Sequence[Row], arm: str, classes: Sequence[Row]) -> Run:
    if not rows:
        return Run(seed, ended=False)
    names = ("round", "miou", "clicks", "pixels", "crossings", "components")
    made = [Point(**{name: row[name] for name in names}) for row in rows]
    last = {"arm": arm, "seed": seed, "round": made[-1].round}.items()
    return Run(seed, made, {row["class_name"]: row["iou"] for row in classes if last <= row.items()}, rows[-1]["ended"])
