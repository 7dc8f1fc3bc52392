"""What a study has reached: gathered from its campaigns, written down, shown."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cereals_core.curves import Point
from cereals_core.settings import CampaignSettings
from cereals_core.strategies import STRATEGIES
from cereals_core.study_settings import FULL_LABELS, REPEATED
from cereals_core.study_statistics import StudyFacts
from tasks.pages.study_report import study_html
from tasks.pages.study_results import Described, facts_of
from tasks.reporting import report_campaign
from tasks.store import tables
from tasks.store.history import evaluated_rounds, has_ended, learning_curve, ledger_before, product_of
from tasks.store.layout import Campaign, Study
from tasks.store.ledger import Row
from tasks.store.storage import write_atomically


def study_facts(study: Study) -> StudyFacts:
    """Gather what the report says, from the campaigns as far as they have come; the first reference has to be there."""
    return _facts(study, *_rows(study))


def report_study(study: Study) -> StudyFacts:
    """Write the study's report, and every point of its curves as tables; returns what they say."""
    points, classes = _rows(study)
    facts = _facts(study, points, classes)
    write_atomically(study.report_file, study_html(facts).encode())
    tables.RESULTS.write(study.folder, points)
    tables.CLASS_RESULTS.write(study.folder, classes)
    return facts


def write_report(place: Campaign | Study) -> Path:
    """Write the report of a campaign or study as far as it has come."""
    if isinstance(place, Study):
        report_study(place)
        return place.report_file
    return report_campaign(place)


def _facts(study: Study, points: Sequence[Row], classes: Sequence[Row]) -> StudyFacts:
    settings = study.settings
    arms = {name: _described(name, **keys) for name, keys in settings.arms().items()}
    said = settings.model_dump_json(indent=1, exclude_none=True)
    return facts_of(settings.name, arms, settings.study.seeds, points, classes, said, settings.study.repeat)


def _rows(study: Study) -> tuple[list[Row], list[Row]]:
    """Gather the rows of RESULTS and CLASS_RESULTS."""
    points, classes = list[Row](), list[Row]()
    for arm, seed, described in _planned(study):
        campaign = _campaign(study, arm, seed)
        if rounds := evaluated_rounds(campaign):
            named = {**described._asdict(), "ended": has_ended(campaign)}
            for point in learning_curve(campaign, rounds):
                key = {"arm": arm, "seed": seed, "round": point.round}
                points.append(key | named | _measures(campaign, point))
                classes += [key | row for row in _classes(campaign, point.round)]
    return points, classes


def _planned(study: Study) -> Iterator[tuple[str, int, Described]]:
    arms, seeds = study.settings.arms(), study.settings.study.seeds
    for arm, keys in arms.items():
        yield from ((arm, seed, _described(arm, **keys)) for seed in seeds)
    yield from ((FULL_LABELS, seed, Described("the whole pool labelled", False)) for seed in seeds)
    if study.settings.study.repeat:
        yield REPEATED, seeds[0], Described("the first arm once more, sharing nothing", False)


def _described(arm: str, strategy: str, **keys: object) -> Described:
    own = "".join(f", {key} = {value}" for key, value in keys.items() if arm != strategy)
    return Described(STRATEGIES[strategy].definition + own, STRATEGIES[strategy].cost == "true")


def _measures(campaign: Campaign, point: Point) -> Row:
    """Return what a round's model came to, what its labels had cost, and how long it was trained."""
    table = tables.LEDGER.read(ledger_before(campaign, point.round))
    training = product_of(campaign, "train-seg", point.round).facts
    costs = {name: int(np.asarray(table[name]).sum()) for name in ("crossings", "components")}
    return vars(point) | costs | {name: training[name] for name in ("steps", "epochs")}


def _classes(campaign: Campaign, number: int) -> list[Row]:
    """Return IoU and labelled cells of each class in a round."""
    rows = tables.CLASSES.read(product_of(campaign, "evaluate", number)).to_pylist()
    cells = product_of(campaign, "train-seg", number).facts.get("cells") or [None] * len(rows)  # not in older products
    return [{**row, "cells": count} for row, count in zip(rows, cells, strict=True)]


def _campaign(study: Study, arm: str, seed: int) -> Campaign:
    settings: CampaignSettings = study.settings.campaign(arm, seed)
    return Campaign(settings.path, settings)
