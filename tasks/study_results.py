"""What a study has reached: gathered from its campaigns, written down, shown."""

from pathlib import Path

import numpy as np

from cereals_core.curves import Point
from cereals_core.settings import CampaignSettings
from cereals_core.strategies import STRATEGIES
from cereals_core.study_settings import FULL_LABELS, REPEATED
from cereals_core.study_statistics import Arm, Repeat, Run, StudyFacts
from tasks.pages.study_report import study_html
from tasks.reporting import report_campaign
from tasks.store import tables
from tasks.store.history import evaluated_rounds, has_ended, learning_curve, ledger_before, product_of
from tasks.store.layout import Campaign, Study
from tasks.store.ledger import Row
from tasks.store.storage import write_atomically


def study_facts(study: Study) -> StudyFacts:
    """Gather what the report says, from the campaigns as far as they have come; the first reference has to be there."""
    settings, arms = study.settings, study.settings.arms()
    first_arm, first_seed = next(iter(arms)), settings.study.seeds[0]
    full = _campaign(study, FULL_LABELS, first_seed)
    repeat = Repeat(first_arm, _run(study, first_arm, first_seed), _run(study, REPEATED, first_seed))
    return StudyFacts(
        name=settings.name,
        arms=[_arm(study, arm, **keys) for arm, keys in arms.items()],
        reference=[_run(study, FULL_LABELS, seed) for seed in settings.study.seeds],
        full_clicks=product_of(full, "seed-set", None).facts["clicks"],
        full_pixels=product_of(full, "pool", None).facts["pixels"],
        settings=settings.model_dump_json(indent=1, exclude_none=True),
        repeat=repeat if settings.study.repeat else None,
    )


def report_study(study: Study) -> Path:
    """Write the study's report, and every point of its curves as a table."""
    facts = study_facts(study)
    write_atomically(study.report_file, study_html(facts).encode())
    _write_tables(study)
    return study.report_file


def write_report(place: Campaign | Study) -> Path:
    """Write the report of a campaign or study as far as it has come."""
    return report_study(place) if isinstance(place, Study) else report_campaign(place)


def _write_tables(study: Study) -> None:
    """Write every point of all curves, and what each class came to."""
    points, classes = list[Row](), list[Row]()
    repeated = [(REPEATED, study.settings.study.seeds[0])] if study.settings.study.repeat else []
    planned = [(arm, seed) for arm in (*study.settings.arms(), FULL_LABELS) for seed in study.settings.study.seeds]
    for arm, seed in (*planned, *repeated):
        campaign = _campaign(study, arm, seed)
        for point in learning_curve(campaign, evaluated_rounds(campaign)):
            key = {"arm": arm, "seed": seed, "round": point.round}
            points.append(key | _measures(campaign, point))
            classes += [key | row for row in _classes(campaign, point.round)]
    tables.RESULTS.write(study.folder, points)
    tables.CLASS_RESULTS.write(study.folder, classes)


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


def _arm(study: Study, arm: str, strategy: str, **keys: object) -> Arm:
    definition, cost = STRATEGIES[strategy].definition, STRATEGIES[strategy].cost
    own = "".join(f", {key} = {value}" for key, value in keys.items() if arm != strategy)
    runs = [_run(study, arm, seed) for seed in study.settings.study.seeds]
    return Arm(arm, definition + own, cost == "true", runs)


def _run(study: Study, arm: str, seed: int) -> Run:
    campaign = _campaign(study, arm, seed)
    rounds = evaluated_rounds(campaign)
    if not rounds:
        return Run(seed, ended=False)
    classes = tables.CLASSES.read(product_of(campaign, "evaluate", rounds[-1])).to_pylist()
    iou = {row["class_name"]: row["iou"] for row in classes}
    return Run(seed, learning_curve(campaign, rounds), iou, has_ended(campaign))


def _campaign(study: Study, arm: str, seed: int) -> Campaign:
    settings: CampaignSettings = study.settings.campaign(arm, seed)
    return Campaign(settings.path, settings)
