import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from checkout import ROOT
from made_round import made_campaign, make, run

from cereals_core.errors import CerealsError, ProductError
from tasks.running import workers
from tasks.running.processes import in_processes
from tasks.selection import nms, region_fusion
from tasks.store import tables

WAIT_S = 60


def squared(number: int) -> tuple[int, int]:
    if number == 40:
        raise ProductError("number 40")
    return number**2, os.getpid()


def test_results_come_in_order_from_several_processes_and_errors_as_they_are() -> None:
    found = in_processes(squared, range(41), 2)
    taken = [next(found) for _ in range(32)]
    assert [value for value, _ in taken] == [number**2 for number in range(32)]
    assert {process for _, process in taken}.isdisjoint({os.getpid()})
    with pytest.raises(ProductError, match="number 40") as got:
        list(found)
    assert isinstance(got.value, CerealsError)


def test_selection_in_processes_is_that_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = made_campaign(tmp_path, 200, images_per_round=1)
    campaign = type(campaign)(
        campaign.folder,
        campaign.settings.model_copy(
            update={"compute": campaign.settings.compute.model_copy(update={"shard_images": 2})}
        ),
    )
    inputs, made = make(campaign), []
    for many in (1 << 30, 2):
        monkeypatch.setattr(workers, "MANY_BATCHES", many)
        scales = run(campaign, region_fusion, inputs)
        proposals = run(campaign, nms, {**inputs, "scales": scales})
        made.append(
            (
                tables.EXTENTS.read(scales).to_pylist(),
                tables.PROPOSALS.read(proposals).to_pylist(),
            )
        )
    assert made[0] == made[1]
    assert (len(made[0][0]), len(made[0][1])) == (200, 128)


SLOW = """
import time
from tasks.running.processes import in_processes
if __name__ == "__main__":
    print("started", flush=True)
    for _ in in_processes(time.sleep, [0.2] * 1000, 2):
        print("one", flush=True)
"""


def descendants(process: Sequence[psutil.Process]) -> list[psutil.Process]:
    return [child for each in process for child in each.children(recursive=True)]


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == ["started\n", "one\n"]
    children = descendants([psutil.Process(parent.pid)])
    assert len(children) >= 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    ends_at = time.monotonic() + WAIT_S
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        assert time.monotonic() < ends_at
        time.sleep(0.1)
