"""Flows that deployments run: a campaign for some rounds or until a time of day, a study, a report.

Their parameters are plain values that a form of the UI shows, each with its meaning, and that are checked before a run
starts. A deployed campaign is the campaign's own flow: its rounds lie directly below it.
"""

from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Crashed, State
from pydantic import Field

from cereals_core.errors import CerealsError, LockedError
from cereals_core.settings_files import read_either, read_settings, read_study
from deployments.status import open_started
from flows.campaign import run_campaign
from flows.study import run_study
from tasks.running.stage import ONE_AT_A_TIME
from tasks.study_results import write_report


def _shown(title: str, description: str, **limits: Any) -> Any:
    """Describe a parameter as a form shows it; Prefect puts its own title over pydantic's, and leaves this one."""
    return Field(json_schema_extra={"title": title, "description": description}, **limits)


_WHERE = "path of a TOML file where the worker is; a relative one starts in the deployment's folder"
CampaignFile = Annotated[str, _shown("Campaign file", f"What to run: {_WHERE}", pattern=r"\.toml$")]
StudyFile = Annotated[str, _shown("Study file", f"What to run: {_WHERE}", pattern=r"\.toml$")]
StartedFile = Annotated[str, _shown("Campaign or study file", f"What to report: {_WHERE}", pattern=r"\.toml$")]
Rounds = Annotated[
    int | None,
    _shown("Rounds", "Leave after so many rounds, the next run goes on; none: until the campaign ends", ge=1),
]
Clock = Annotated[
    str | None,
    _shown(
        "Until",
        "Leave when this time of day (HH:MM where the worker is) comes next, after the step in hand; none: no limit",
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$",
    ),
]


def next_time(clock: str, now: datetime) -> datetime:
    """Find when the time of day `clock` (HH:MM) next comes after `now`, in this machine's zone."""
    today = now.astimezone().date()
    days = (today, today + timedelta(days=1))
    moments = [datetime.combine(day, time.fromisoformat(clock)).astimezone() for day in days]
    return next(moment for moment in moments if moment > now)


def run_name() -> str:
    """Return the name that the current flow run's file gives, or the file's own name where it cannot be read."""
    file = Path(flow_run.parameters["file"])
    try:
        return read_either(file).name
    except (CerealsError, OSError):
        return file.stem


@flow(name="campaign", flow_run_name=run_name, task_runner=ONE_AT_A_TIME)
def campaign(file: CampaignFile, rounds: Rounds = None, until: Clock = None) -> State[Any]:
    """Start a campaign, or go on with it where the last run left it."""
    _close_killed_attempt()
    moment = None if until is None else next_time(until, datetime.now().astimezone())
    settings = read_settings(Path(file))
    try:
        return Completed(message=run_campaign.fn(settings, rounds=rounds, until=moment))
    except LockedError as error:
        return _already_running(error)


@flow(name="study", flow_run_name=run_name, task_runner=ONE_AT_A_TIME)
def study(file: StudyFile) -> State[Any]:
    """Start a study, or go on with it: every campaign it means, one after the other."""
    _close_killed_attempt()
    settings = read_study(Path(file))
    try:
        done = run_study.fn(settings)
    except LockedError as error:
        return _already_running(error)
    return Completed(message=f"all campaigns are done; report: {done.report_file}")


@flow(name="report", flow_run_name=run_name)
def report(file: StartedFile) -> State[Any]:
    """Write the report of a campaign or study as far as it has come, one HTML file in its folder."""
    return Completed(message=f"report: {write_report(open_started(Path(file)))}")


def _close_killed_attempt() -> None:
    """Say of rounds (campaigns) that a killed attempt of this run left running that they have crashed.

    Prefect would go on with them in a retry as if they were the first ones that this attempt runs.
    """
    if (flow_run.run_count or 1) == 1:
        return
    below = FlowRunFilter.model_validate({"parent_flow_run_id": {"any_": [flow_run.id]}})
    with get_client(sync_client=True) as client:
        for child in client.read_flow_runs(flow_run_filter=below, limit=200):
            if child.state is None or not child.state.is_final():
                client.set_flow_run_state(child.id, Crashed(message="its process was killed"), force=True)


def _already_running(error: LockedError) -> State[Any]:
    """End a run that came too early: neither done nor failed, like a run that CANCEL_NEW keeps out."""
    return Cancelled(name="AlreadyRunning", message=str(error))
