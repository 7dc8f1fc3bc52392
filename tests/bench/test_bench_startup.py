"""Benchmarks of starting: commands that should answer at once, and Prefect's cost of a task. Off by default."""

import subprocess
import sys
from pathlib import Path

import pytest
from measure import elapsed, keep, side_by_side
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from cereals_core.settings import CampaignSettings
from tasks.pages.benchmarks import Measured

TASKS, IMAGES = 60, 3000
BIN = Path(sys.executable).parent

pytestmark = pytest.mark.bench


def test_commands_answer_at_once(finished: CampaignSettings, tmp_path: Path) -> None:
    """Starts a second, against Python with the command line's library alone."""
    file = tmp_path / "small.toml"
    kept = finished.model_dump(mode="json", exclude_none=True)
    sections = {name: value for name, value in kept.items() if isinstance(value, dict)}
    head = "".join(f"{name} = {_toml(value)}\n" for name, value in kept.items() if name not in sections)
    file.write_text(head + "".join(f"[{name}]\n{_keys(keys)}" for name, keys in sections.items()))

    def started(*command: str | Path) -> None:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    ways = (
        lambda: started(BIN / "cereals", "--help"),
        lambda: started(BIN / "cereals", "status", file),
        lambda: started(sys.executable, "-c", "import typer.main, pydantic"),
    )
    help_s, status_s, bare_s = side_by_side(ways, 5)
    keep(
        Measured("start", "cereals --help; bare: Python with typer and pydantic", 1 / help_s, 1 / bare_s),
        Measured("start", "cereals status, a campaign of two rounds", 1 / status_s, 1 / bare_s),
    )
    assert max(help_s, status_s) < 5 * bare_s


def _keys(keys: dict[str, object]) -> str:
    return "".join(f"{name} = {_toml(value)}\n" for name, value in keys.items())


def _toml(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


@pytest.mark.usefixtures("prefect_server")
def test_one_task_a_stage_and_one_an_image() -> None:
    """Images a second that Prefect lets pass, if a stage is a task, and if an image is one."""

    @task(cache_policy=NO_CACHE, persist_result=False)
    def nothing(number: int) -> int:
        return number

    @flow(validate_parameters=False)
    def tasks(count: int) -> list[int]:
        return [future.result() for future in [nothing.submit(number) for number in range(count)]]

    one_s, many_s = elapsed(lambda: tasks(1)), elapsed(lambda: tasks(TASKS))
    an_image_s = (many_s - one_s) / (TASKS - 1)
    keep(
        Measured(
            "orchestration",
            f"a Prefect task a stage of {IMAGES:,} images; public: a task an image",
            IMAGES / one_s,
            None,
            1 / an_image_s,
        )
    )
    assert one_s < IMAGES * an_image_s / 10
