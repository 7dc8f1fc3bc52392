"""Campaigns and studies from the command line: what has ended needs no server, and what another runs is refused."""

from collections.abc import Sequence

import typer

from cereals_core.settings import CampaignSettings
from cereals_core.study_settings import StudySettings
from deployments.attending import Work, attend
from tasks.running.opening import open_campaign, refuse_held
from tasks.store.history import end_of
from tasks.store.layout import Campaign, Study


def start_campaigns(settings: Sequence[CampaignSettings], command: str) -> None:
    """Start campaigns or go on with them, one after the other; LockedError while another process runs one."""
    campaigns = [open_campaign(each) for each in settings]
    ends = [end_of(each) for each in campaigns]
    if not all(ends):
        for each in campaigns:
            refuse_held(each)
        attend(lambda: _runner_of(campaigns), command)
        return
    for campaign, reason in zip(campaigns, ends, strict=True):
        typer.echo(f"{campaign.settings.name}: {reason}")


def start_study(settings: StudySettings, command: str) -> None:
    """Start a study or go on with it; LockedError while another process runs it."""
    study = Study(settings.path, settings)
    planned = (Campaign(each.path, each) for _, each in settings.campaigns())
    if study.report_file.exists() and all(end_of(each) for each in planned):
        return
    refuse_held(study)
    attend(lambda: _study_runner_of(settings), command)


def _runner_of(campaigns: Sequence[Campaign]) -> Work:
    from flows.campaign import run_campaign

    def run() -> None:
        for each in campaigns:
            typer.echo(f"{each.settings.name}: {run_campaign(each.settings)}")

    return run


def _study_runner_of(settings: StudySettings) -> Work:
    from flows.study import run_study

    def run() -> None:
        run_study(settings)

    return run
