"""Stages on Dask workers: what runs where, what a lost worker costs, what errors say."""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import dask
import pytest
import worker_calls
from distributed import Client, Nanny, Scheduler, SpecCluster, Worker
from moto_store import LOOPBACK, free_port
from same_products import digests, manifests

from cereals_core.errors import CerealsError, WorkersError
from cereals_core.settings import CampaignSettings
from tasks.running import workers
from tasks.running.workers import Cluster, computing, current_workers
from tasks.telling.progress import _stop, request_stop

ON_GPU = {"train-seg", "train-cost", "info-map", "cost-map", "evaluate", "evaluate-cost"}


QUICK = {"distributed.comm.timeouts.connect": "3s"}
"""Workers that died are not looked for for long."""


@contextmanager
def cluster_of(kind: type, **claims: str) -> Iterator[SpecCluster]:
    """Workers by name, each with what it claims, and a scheduler, all on this host."""
    specs = {
        name: {
            "cls": kind,
            "options": {"nthreads": 1, "resources": {resource: 1}, "memory_limit": 0, "host": LOOPBACK},
        }
        for name, resource in claims.items()
    }
    scheduler = {"cls": Scheduler, "options": {"host": LOOPBACK, "dashboard_address": f"{LOOPBACK}:0"}}
    with SpecCluster(specs, scheduler, silence_logs=False) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def processes() -> Iterator[SpecCluster]:
    """Two workers that claim GPU and one that claims CPU, each a process; a second death of a call's worker ends it."""
    with (
        dask.config.set({**QUICK, "distributed.scheduler.allowed-failures": 1}),
        cluster_of(Nanny, g1="GPU", g2="GPU", c="CPU") as cluster,
    ):
        yield cluster


@pytest.fixture
def cluster(processes: SpecCluster) -> Iterator[Cluster]:
    with Client(processes) as client:
        yield Cluster(client)


@pytest.fixture
def cpu_only() -> Iterator[SpecCluster]:
    """One worker in a thread of this process that claims CPU."""
    with cluster_of(Worker, c="CPU") as cluster:
        yield cluster


def names(hosts: Any) -> set[str]:
    """Names of the workers in what a call or a manifest tells."""
    return {host.split()[-1] for host in hosts}


def at(settings: CampaignSettings, cluster: SpecCluster, **compute: object) -> CampaignSettings:
    """The same campaign on these workers."""
    there = {"cluster": cluster.scheduler_address, **compute}
    return settings.model_copy(update={"compute": settings.compute.model_copy(update=there)})


def ran_on(settings: CampaignSettings) -> dict[str, list[set[str]]]:
    """Names of the workers that a stage ran on, in each round."""
    found = defaultdict(list)
    for _, manifest in manifests(settings):
        found[manifest["recipe"]["stage"]].append(names(manifest["facts"].get("hosts", ())))
    return found


def test_a_campaign_on_workers_is_that_of_one_process(
    small: CampaignSettings, finished: CampaignSettings, processes: SpecCluster
) -> None:
    from flows.campaign import run_campaign

    assert run_campaign(at(small, processes)) == "all 2 rounds of queries are done"
    assert digests(small) == digests(finished)
    found = ran_on(small)
    assert found.pop("report") == [set(), set(), set()]  # in the process of the flow
    assert found.keys() > ON_GPU
    for stage, rounds in found.items():
        assert all(hosts and hosts <= ({"g1", "g2"} if stage in ON_GPU else {"c"}) for hosts in rounds), (stage, rounds)
    assert {"g1", "g2"} in found["info-map"] + found["cost-map"]


@pytest.mark.parametrize(("gpu", "expected"), [(True, {"g1", "g2"}), (False, {"c"})])
def test_results_come_in_the_order_of_the_batches(cluster: Cluster, gpu: bool, expected: set[str]) -> None:
    done = list(cluster.each(worker_calls.slowly, iter(range(9)), gpu))
    assert [each.result for each in done] == list(range(9))
    assert names(each.host for each in done) == expected
    assert cluster.lanes(gpu) == len(expected)
    assert all(each.peak_bytes > 1 << 20 for each in done)


def test_batches_are_drawn_no_further_ahead_than_workers_need(cluster: Cluster) -> None:
    drawn: list[int] = []
    results = cluster.each(worker_calls.slowly, (drawn.append(n) or n for n in range(100)), gpu=True)
    next(results)
    assert len(drawn) <= 2 * workers.BATCHES_A_WORKER + 2
    results.close()


@pytest.mark.parametrize("error", [ZeroDivisionError("of the call"), FileNotFoundError("of the call")])
def test_the_error_of_a_call_is_raised_as_itself(cluster: Cluster, error: Exception) -> None:
    with pytest.raises(type(error), match=r"^of the call$"):
        list(cluster.each(worker_calls.failing, [error], gpu=True))


def test_a_worker_that_dies_costs_its_batch_only(cluster: Cluster, tmp_path: Path) -> None:
    done = cluster.each(partial(worker_calls.killed_once, tmp_path), range(8), gpu=True)
    assert [each.result for each in done] == list(range(8))
    assert (tmp_path / "killed").exists()


def test_a_call_of_which_workers_die_is_given_up(cluster: Cluster) -> None:
    with pytest.raises(
        RuntimeError, match=r"^Dask scheduler tcp://.* look into the workers' logs, then run again$"
    ) as got:
        list(cluster.each(worker_calls.killed, [1], gpu=True))
    assert isinstance(got.value, WorkersError)
    assert isinstance(got.value, CerealsError)


def test_what_nobody_waits_for_is_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    results = cluster.each(partial(worker_calls.marked, tmp_path), range(9), gpu=False)
    assert next(results).result == 0
    results.close()
    time.sleep(0.8)
    begun = {path.name for path in tmp_path.iterdir()}
    assert "0" in begun
    assert len(begun) < 5


def test_a_call_that_runs_stops_when_nobody_waits_for_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop() -> None:
        wait_for(tmp_path / "begun")
        request_stop()

    threading.Thread(target=stop).start()
    try:
        with pytest.raises(CerealsError, match="stopped on request"):
            list(cluster.each(partial(worker_calls.until_stopped, tmp_path), [1], gpu=True))
    finally:
        _stop.clear()
    wait_for(tmp_path / "Interrupted")


def wait_for(file: Path) -> None:
    until = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < until, f"{file} did not come"
        time.sleep(0.02)


def test_without_gpu_workers_all_runs_on_the_others(cpu_only: SpecCluster) -> None:
    with Client(cpu_only) as client:
        for device in ("auto", "cpu"):
            done = list(Cluster(client, device).each(worker_calls.slowly, [5], gpu=True))
            assert names(each.host for each in done) == {"c"}


def test_device_cpu_leaves_gpu_workers_alone(cluster: Cluster) -> None:
    done = list(Cluster(cluster.client, "cpu").each(worker_calls.slowly, range(4), gpu=True))
    assert names(each.host for each in done) == {"c"}


def test_workers_that_nobody_started_are_named_after_a_wait(
    cpu_only: SpecCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "WAIT_FOR_WORKERS_S", 0.1)
    expected = rf"^Dask scheduler {cpu_only.scheduler_address}: no worker claims GPU; start one with `cereals worker`$"
    with Client(cpu_only) as client, pytest.raises(WorkersError, match=expected):
        list(Cluster(client, "cuda").each(worker_calls.slowly, [1], gpu=True))


def test_a_scheduler_that_is_lost_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}), cluster_of(Worker, c="CPU") as lost:
        client = Client(lost.scheduler_address)
        threading.Timer(0.5, lost.close).start()
        with pytest.raises(WorkersError, match=r"^Dask scheduler tcp://.*: lost; start it again, then run again$"):
            list(Cluster(client).each(time.sleep, [3], gpu=False))
        client.close()


def test_no_scheduler_is_told(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = f"tcp://{LOOPBACK}:{free_port()}"
    monkeypatch.setattr(workers, "Client", lambda address, timeout: Client(address, timeout=1))
    compute = small.compute.model_copy(update={"cluster": nobody})
    with pytest.raises(WorkersError, match=rf'^compute\.cluster = "{nobody}": no .* start one with `dask scheduler`$'):
        computing(compute).__enter__()


def test_inside_of_a_study_its_workers_serve_all(processes: SpecCluster, small: CampaignSettings) -> None:
    with computing(at(small, processes).compute) as outer, computing(small.compute) as inner:
        assert inner is outer is current_workers()
    assert current_workers() is not outer


DEATHS: dict[str, tuple[str, str, int]] = {
    "a training": ("tasks.training", "_save_checkpoint", 3),
    "maps": ("tasks.store.maps:MapStore", "write", 2),
}


@pytest.mark.system
@pytest.mark.parametrize("work", DEATHS)
def test_workers_killed_at_work_change_nothing(work: str, small: CampaignSettings, finished: CampaignSettings) -> None:
    from flows.campaign import run_campaign

    with (
        dask.config.set({**QUICK, "distributed.scheduler.allowed-failures": 3}),
        cluster_of(Nanny, g1="GPU", g2="GPU", c="CPU") as cluster,
        Client(cluster) as client,
    ):
        client.run(worker_calls.save_every_epoch)
        before = set(client.run(os.getpid).values())
        client.run(worker_calls.kill_at, *DEATHS[work])
        assert run_campaign(at(small, cluster)) == "all 2 rounds of queries are done"
        assert before - set(client.run(os.getpid).values())
    assert digests(small) == digests(finished)
