"""What a study has reached: gathered from its campaigns, written down, shown."""

from pathlib import Path

from cereals_core.settings import CampaignSettings
from cereals_core.strategies import STRATEGIES
from cereals_core.study_settings import FULL_LABELS, REPEATED
from cereals_core.study_statistics import Arm, Repeat, Run, StudyFacts
from tasks.pages.study_report import study_html
from tasks.reporting import report_campaign
from tasks.store import tables
from tasks.store.history import evaluated_rounds, has_ended, learning_curve, product_of
from tasks.store.layout import Campaign, Study
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
    tables.RESULTS.write(study.folder, _rows(facts))
    return study.report_file


def write_report(place: Campaign | Study) -> Path:
    """Write the report of a campaign or study as far as it has come."""
    return report_study(place) if isinstance(place, Study) else report_campaign(place)


def _rows(facts: StudyFacts) -> list[dict[str, object]]:
    series = {arm.name: arm.runs for arm in facts.arms} | {FULL_LABELS: facts.reference}
    if facts.repeat is not None:
        series[REPEATED] = [facts.repeat.second]
    return [
        {"arm": arm, "seed": run.seed, **vars(point)}
        for arm, runs in series.items()
        for run in runs
        for point in run.points
    ]


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
