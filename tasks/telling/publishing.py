"""Pages in Prefect's interface: one markdown artifact a flow run, its versions under one key, links between them."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from urllib.parse import urlsplit

from prefect import get_client
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL

from cereals_core.study_statistics import StudyFacts
from tasks.pages import study_wording
from tasks.pages.facts import RoundFacts
from tasks.pages.markdown import round_markdown
from tasks.pages.study_report import study_markdown
from tasks.pages.wording import describes, description

_rounds_shown: ContextVar[bool] = ContextVar("rounds_shown", default=True)


@contextmanager
def without_round_pages() -> Iterator[None]:
    """Let rounds leave no page until the block ends, as in a study, which has a page of its own."""
    token = _rounds_shown.set(False)
    try:
        yield
    finally:
        _rounds_shown.reset(token)


def shows_rounds() -> bool:
    """Tell whether rounds leave a page: inside of a flow run, unless they are not to."""
    return _rounds_shown.get() and FlowRunContext.get() is not None


def publish_round(facts: RoundFacts, pictures: Mapping[str, bytes]) -> None:
    """Show the page of a round, with links to the round before, to all rounds, and to the current flow run."""
    key = f"{facts.campaign}-round"
    links = {**_link_before(facts, key), "All rounds": _path(f"artifacts/key/{key}")}
    page = round_markdown(replace(facts, links=links, flow_run_url=_flow_run_link()), pictures)
    publish(page, key, description(facts))


def publish_study(facts: StudyFacts) -> None:
    """Show the page of a study as far as it has come; in the same run it takes the place of the one before."""
    publish(study_markdown(facts), f"{facts.name}-study", study_wording.description(facts))


def _link_before(facts: RoundFacts, key: str) -> dict[str, str]:
    """Return the address of the page of the round before, if that is the newest there."""
    last, number = _last_page(key), facts.point.round - 1
    if last is None or not describes(last.description, facts, number):
        return {}
    return {f"Round {number}": _path(f"artifacts/artifact/{last.id}")}


def _flow_run_link() -> str | None:
    run = FlowRunContext.get()
    return _path(f"runs/flow-run/{run.flow_run.id}") if run is not None and run.flow_run is not None else None


def publish(page: str, key: str, summary: str) -> None:
    """Show a page in the interface: a version for each flow run, the newest page of a run in place of those before."""
    last, run = _last_page(key), FlowRunContext.get()
    if last is not None and run is not None and run.flow_run is not None and last.flow_run_id == run.flow_run.id:
        with get_client(sync_client=True) as client:
            client.update_artifact(last.id, ArtifactUpdate(data=page, description=summary))
    else:
        create_markdown_artifact(page, key=key, description=summary)


def _last_page(key: str) -> Artifact | None:
    """Find the newest version under a key."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(
            artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])), sort=ArtifactSort.CREATED_DESC, limit=1
        )
    return found[0] if found else None


def _path(page: str) -> str:
    """Return a path from the interface's own host, which a tunnel or another server of the same database may change."""
    base = urlsplit(PREFECT_UI_URL.value() or "").path.rstrip("/")
    return f"{base}/{page}"
