"""Pages in Prefect's interface: how many are left, what they link to, and where none is wanted."""

import re
from collections.abc import Callable

import pytest
from made_facts import POINTS, facts
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from prefect.settings import PREFECT_UI_URL, temporary_settings

from cereals_core.curves import Point
from tasks.telling.publishing import publish, publish_round, shows_rounds, without_round_pages

pytestmark = pytest.mark.usefixtures("prefect_server")


def pages(key: str) -> list[Artifact]:
    """Versions under a key, the oldest first."""
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.CREATED_DESC)[::-1]


def in_a_run(body: Callable[[], None]) -> None:
    """Call it in a flow run of its own, in a task, as a stage is."""
    flow(lambda: task(body, name="report").submit().result(), name="round")()


def test_a_run_leaves_one_page_and_the_next_run_another() -> None:
    def two() -> None:
        publish("first", "one-page", "1")
        publish("second", "one-page", "2")

    in_a_run(two)
    assert [(page.data, page.description) for page in pages("one-page")] == [("second", "2")]
    in_a_run(two)
    first, second = pages("one-page")
    assert (first.data, second.data) == ("second", "second")
    assert first.flow_run_id != second.flow_run_id


def test_a_round_links_to_the_round_before_to_all_and_to_its_run() -> None:
    for count in (1, 2):
        in_a_run(lambda count=count: publish_round(facts(campaign="links", points=POINTS[:count]), {}))
    first, second = pages("links-round")
    assert links_of(first) == {
        "All rounds": "/artifacts/key/links-round",
        "Flow run": f"/runs/flow-run/{first.flow_run_id}",
    }
    assert links_of(second) == {
        "Round 0": f"/artifacts/artifact/{first.id}",
        "All rounds": "/artifacts/key/links-round",
        "Flow run": f"/runs/flow-run/{second.flow_run_id}",
    }
    assert second.description == "links, round 1: mIoU 0.250, 178.5 clicks so far"


def test_a_round_whose_predecessor_left_no_page_here_does_not_link_to_another() -> None:
    for number in (0, 2):
        points = [Point(each, 0.3, 100, 1000) for each in range(number + 1)]
        in_a_run(lambda points=points: publish_round(facts(campaign="gap", points=points), {}))
    assert list(links_of(pages("gap-round")[1])) == ["All rounds", "Flow run"]


def test_links_keep_the_path_that_the_interface_is_served_below() -> None:
    with temporary_settings({PREFECT_UI_URL: "https://host/account/1/workspace/2"}):
        in_a_run(lambda: publish_round(facts(campaign="below"), {}))
    assert links_of(pages("below-round")[0])["All rounds"] == "/account/1/workspace/2/artifacts/key/below-round"


def test_within_a_study_rounds_leave_no_page() -> None:
    seen = []
    with without_round_pages():
        in_a_run(lambda: seen.append(shows_rounds()))
    in_a_run(lambda: seen.append(shows_rounds()))
    assert seen == [False, True]


def links_of(page: Artifact) -> dict[str, str]:
    """Addresses of the page's first line of links by their names."""
    line = str(page.data).split("\n\n")[1]
    return dict(re.findall(r"\[([^\]]+)\]\(<([^>]+)>\)", line))
