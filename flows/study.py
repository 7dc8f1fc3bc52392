"""A study: strategies x seeds as campaigns, each resumable; the report grows with them.

Campaigns of one seed run one after the other, since they share what they have in common; seeds run side by side, as
many as there are workers for networks.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import groupby
from threading import Lock

from prefect import flow

from cereals_core.settings import CampaignSettings
from cereals_core.study_settings import REPEATED, StudySettings
from flows.campaign import run_campaign
from tasks.running.opening import writing
from tasks.running.stage import ONE_AT_A_TIME
from tasks.running.workers import computing
from tasks.store.layout import Study
from tasks.study_results import report_study
from tasks.telling.progress import stop_if_requested
from tasks.telling.publishing import publish_study, without_round_pages

_reporting = Lock()


@flow(name="study", flow_run_name="{settings.name}", task_runner=ONE_AT_A_TIME)
def run_study(settings: StudySettings) -> Study:
    """Start the study or go on with it: every campaign it means, those of one seed sharing their beginning."""
    study = Study(settings.path, settings)
    with writing(study), computing(settings.compute) as workers, without_round_pages():
        first, *others = settings.campaigns()
        _run(study, [first])  # the reference of the first seed, without which there is no report
        seeds = [list(some) for _, some in groupby(others, lambda planned: planned[1].seed)]
        with ThreadPoolExecutor(workers.lanes(gpu=True)) as lanes:
            for ended in [lanes.submit(copy_context().run, _run, study, some) for some in seeds]:
                ended.result()
    return study


def _run(study: Study, campaigns: Sequence[tuple[str, CampaignSettings]]) -> None:
    """Run campaigns one after the other, and the report after each."""
    for arm, settings in campaigns:
        stop_if_requested()
        run_campaign(settings, shared=None if arm == REPEATED else study.shared)
        with _reporting:
            publish_study(report_study(study))
