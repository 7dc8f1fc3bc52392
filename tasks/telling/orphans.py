"""Flow runs that died with their process: the server shows them as running until somebody says what became of them.

Whoever holds a campaign's lock is its only run. It writes its flow run's id into the campaign's folder, and what stood
there before it is either done or dead. Rounds and tasks below a dead run are dead as well.
"""

import json
from collections.abc import Iterator, Sequence
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas import filters
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.states import Crashed

from tasks.store.layout import Place
from tasks.store.storage import write_atomically

FLOW_RUNS = "flow-runs.json"
UNFINISHED = [StateType.PENDING, StateType.RUNNING, StateType.CANCELLING]
"""States in which a process is at work. Paused, suspended and scheduled runs have none, and are not dead."""
MESSAGE = "Its process ended without a word. This was found when the same campaign was started again."


def crash_orphans(place: Place) -> None:
    """Mark as crashed what earlier runs of a campaign or study left unfinished; to be called under its lock.

    Two requests when there is nothing to mark. A server that does not answer is no reason to stop: then they are tried
    again at the next start. One that knows none of the runs is another server, and they are forgotten.
    """
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    own = context.flow_run.id
    earlier = [each for each in _recorded(place) if each != own]
    try:
        _record(place, [*earlier, own])
        if earlier:
            with get_client(sync_client=True) as client:
                _crash(client, earlier)
            _record(place, [own])
    except Exception as error:  # noqa: BLE001  (whatever the server or the disk says, the campaign can go on)
        get_run_logger().warning("%d earlier runs may be shown as running for ever: %s", len(earlier), error)


def _record(place: Place, flow_runs: Sequence[UUID]) -> None:
    write_atomically(place.folder / FLOW_RUNS, json.dumps([str(each) for each in flow_runs]).encode())


def _recorded(place: Place) -> list[UUID]:
    try:
        return [UUID(each) for each in json.loads((place.folder / FLOW_RUNS).read_text())]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def _crash(client: SyncPrefectClient, flow_runs: Sequence[UUID]) -> None:
    """Mark what is unfinished among these flow runs, all below them, and their task runs."""
    dead = list(_unfinished(client, flow_runs))
    below = filters.TaskRunFilter(
        flow_run_id=filters.TaskRunFilterFlowRunId(any_=[*flow_runs, *dead]),
        state=filters.TaskRunFilterState(type=filters.TaskRunFilterStateType(any_=UNFINISHED)),
    )
    for task_run in client.read_task_runs(task_run_filter=below):
        client.set_task_run_state(task_run.id, Crashed(message=MESSAGE), force=True)
    for flow_run in dead:
        client.set_flow_run_state(flow_run, Crashed(message=MESSAGE), force=True)


def _unfinished(client: SyncPrefectClient, flow_runs: Sequence[UUID]) -> Iterator[UUID]:
    """List the unfinished ones of these flow runs and of their children, and so on below the unfinished ones."""
    these = {"any_": list(flow_runs)}
    family = filters.FlowRunFilter.model_validate({"operator": "or_", "id": these, "parent_flow_run_id": these})
    found = client.read_flow_runs(flow_run_filter=family, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    dead = [run.id for run in found if run.state_type in UNFINISHED]
    yield from (run for run in dead if run in flow_runs)
    children = [run for run in dead if run not in flow_runs]
    if children:
        yield from _unfinished(client, children)
