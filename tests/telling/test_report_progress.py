"""Progress of stages: what sinks are told, and that nothing they do can break or hold up the work."""

import threading
import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterType
from prefect.client.schemas.objects import Artifact
from prefect.context import FlowRunContext

from tasks.telling import run_progress
from tasks.telling.progress import Interrupted, Tracker, request_stop, told_to, track
from tasks.telling.run_progress import Due, RunListener
from tasks.telling.tracking import Listener, Reached, Sink


class Told(Listener, Sink):
    """A listener whose only sink is itself, which remembers."""

    def __init__(self) -> None:
        self.shown: list[Reached] = []
        self.ended: list[bool] = []

    def sinks(self, reached: Reached) -> Sequence[Sink]:
        return (self,)

    def show(self, reached: Reached) -> None:
        self.shown.append(reached)

    def end(self, reached: Reached, whole: bool) -> None:
        self.ended.append(whole)


def test_a_line_by_hand() -> None:
    fast = Reached("demo round 3 info-map", "images", 1_280, 20_000, 41.0)
    assert str(fast) == "demo round 3 info-map: 1,280 of 20,000 images, 41 images/s, 7 min 37 s left"
    slow = Reached("demo round 0 train-seg", "epochs", 2, 7, 0.1, "loss 0.75")
    assert str(slow) == "demo round 0 train-seg: 2 of 7 epochs, 10.0 s each, 50.0 s left, loss 0.75"
    assert str(Reached("a", "images", 0, 5, 0.0)) == "a: 0 of 5 images"
    assert str(Reached("a", "images", 5, 5, 2.0)) == "a: 5 of 5 images, 2 images/s"
    early = Reached("a", "epochs", 2, 7, 0.1, at_most=True)
    assert str(early) == "a: 2 of at most 7 epochs, 10.0 s each, at most 50.0 s left"
    assert (slow.percent, Reached("a", "x", 0, 0, 0.0).percent) == (pytest.approx(200 / 7), 100.0)


def test_a_tracker_tells_its_sinks_and_takes_the_rate_from_what_was_done_since() -> None:
    told = Told()
    followed = Tracker(Reached("work", "images", 4, 10, 0.0), [told])
    time.sleep(0.05)
    followed("one")
    followed.update(8, 12)
    followed.end(whole=True)
    one, two = told.shown
    assert (one.done, one.total, one.note, two.done, two.total, two.note) == (5, 10, "one", 8, 12, "")
    assert 0 < one.rate <= 1 / 0.05
    assert told.ended == [True]


def test_threads_may_share_a_tracker() -> None:
    told = Told()
    followed = Tracker(Reached("work", "images", 0, 800, 0.0), [told])
    threads = [threading.Thread(target=lambda: [followed() for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [reached.done for reached in told.shown] == list(range(1, 801))


def test_work_that_breaks_off_is_not_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Told()
    monkeypatch.setattr("tasks.telling.progress._stop", threading.Event())
    request_stop()
    with told_to(told), track("work", 2, "images") as advance, pytest.raises(Interrupted):
        advance()
    assert told.ended == [True]
    with told_to(told), pytest.raises(Interrupted), track("work", 2, "images") as advance:
        advance()
    assert told.ended == [True, False]
    assert [reached.done for reached in told.shown] == [1, 1]


def test_a_moment_comes_at_first_then_now_and_then_and_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run_progress, "monotonic", lambda: now[0])
    due, came = Due(10.0, 5.0), []
    for second in range(2_000):
        now[0] = float(second)
        if due:
            came.append(second)
    assert came[:4] == [10, 15, 20, 25]
    assert max(later - sooner for sooner, later in pairwise(came)) == 39  # 2 % of 1,960 s


def test_work_that_its_listener_calls_off_stops() -> None:
    class Gone(Told):
        def is_cancelled(self) -> bool:
            return len(self.shown) > 1

    with told_to(gone := Gone()), track("work", 9, "images") as advance:
        advance()
        with pytest.raises(Interrupted):
            advance()
    assert [reached.done for reached in gone.shown] == [1, 2]


@task(name="some", task_run_name="demo round 3 some")
def some(units: int, what: str, done: int | None = None) -> None:
    """Work of a stage, its progress told whenever there is some; it breaks if not all is done."""
    with told_to(RunListener()), track(what, units, "images") as followed:
        for _ in range(units if done is None else done):
            followed("note")
            time.sleep(0.02)
        if done is not None:
            raise ValueError("broken")


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOG_EVERY_S", "ARTIFACT_AFTER_S", "ARTIFACT_EVERY_S"):
        monkeypatch.setattr(run_progress, name, 0.0)


def test_a_run_shows_its_progress_under_the_name_of_its_task(
    prefect_server: None, at_once: None, caplog: pytest.LogCaptureFixture
) -> None:
    @flow
    def three() -> str:
        some(40, "some")
        some(1, "part")
        some(20, "some", 15, return_state=True)  # type: ignore[call-overload]
        run = FlowRunContext.get()
        assert run is not None
        assert run.flow_run is not None
        return str(run.flow_run.id)

    run_id = three()
    whole, part, broken = sorted(_progress_of(run_id), key=lambda artifact: str(artifact.created))
    assert (whole.data, whole.description, whole.key) == (100.0, "demo round 3 some: done, 40 images", None)
    assert (part.data, part.description) == (100.0, "demo round 3 some (part): done, 1 images")
    assert isinstance(broken.data, int | float)
    assert 0 < broken.data <= 75
    assert "of 20 images" in str(broken.description)
    assert any(line.startswith("demo round 3 some: 2 of 40 images, ") for line in caplog.messages)


def _progress_of(run_id: str) -> list[Artifact]:
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter(type=ArtifactFilterType(any_=["progress"])))
    return [artifact for artifact in found if str(artifact.flow_run_id) == run_id]


def test_a_server_that_is_gone_or_slow_neither_breaks_nor_holds_up_a_stage(
    prefect_server: None, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = threading.Event()

    def gone(*given: object, **named: object) -> None:
        asked.set()
        raise ConnectionError("no server")

    def slow(*given: object, **named: object) -> None:
        time.sleep(30)

    monkeypatch.setattr(run_progress, "create_progress_artifact", gone)
    flow(lambda: some(10, "some"), name="gone")()
    assert asked.is_set()
    monkeypatch.setattr(run_progress, "create_progress_artifact", slow)
    monkeypatch.setattr(run_progress, "WAIT_FOR_SERVER_S", 0.1)
    started = time.monotonic()
    flow(lambda: some(10, "some"), name="slow")()
    assert time.monotonic() - started < 10
