"""Where stages run: in this process, or on Dask workers that claim the resource a stage needs.

Workers claim one of two resources: GPU (those with a CUDA device of their own) or CPU (all others), one unit each, so
that a worker does one thing at a time. Stages with networks go to GPU workers while there are any, everything else to
CPU workers. What a worker returns is small: shards and weights are written to the campaign's folder, which all share.

The Prefect task of a stage stays in the process of the flow. So workers need no Prefect server, and one that dies costs
the shard or the training it was at, which Dask hands to another.
"""

import logging
import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import torch
from distributed import Client, Future, Nanny, Scheduler, SpecCluster, Worker, get_worker, wait
from distributed.client import FutureCancelledError, FuturesCancelledError
from distributed.scheduler import KilledWorker

from cereals_core.errors import WorkersError
from cereals_core.settings import Compute
from tasks.running.memory import peak_bytes, reset_peak
from tasks.running.processes import in_processes
from tasks.telling.progress import stop_if_requested, told_to
from tasks.telling.remote_progress import Call, Calls

Batch = TypeVar("Batch")
Made = TypeVar("Made")
GPU, CPU = "GPU", "CPU"
LOOPBACK = "127.0.0.1"
WAIT_FOR_WORKERS_S = 60.0
"""So long no worker may claim what a stage needs, before the stage fails."""
MANY_BATCHES = 128
"""Batches from which on it pays to start processes, which takes some seconds."""
BATCHES_A_WORKER = 2
"""Batches in flight for each worker, so that it has the next one when it ends one."""


@dataclass(frozen=True)
class Done:
    """What a call gave: its result, the largest memory of the process since the call began, and where it ran."""

    result: Any
    peak_bytes: int
    host: str


class Workers(Protocol):
    """What stages run on."""

    def lanes(self, gpu: bool) -> int:
        """Tell how many calls run at a time."""

    def each(self, function: Callable[[Batch], Any], batches: Iterable[Batch], gpu: bool) -> Iterator[Done]:
        """Call `function` on every batch, and yield what it gave in the order of the batches."""


class ThisProcess:
    """One call after the other, here, or on the cores of this machine."""

    def lanes(self, gpu: bool) -> int:
        """Tell how many calls run at a time."""
        return 1

    def each(self, function: Callable[[Batch], Any], batches: Iterable[Batch], gpu: bool) -> Iterator[Done]:
        """Call `function` on every batch; many batches of arithmetic, in processes of this machine."""
        cores = len(os.sched_getaffinity(0))
        try:
            if not gpu and cores > 1 and isinstance(batches, Sequence) and len(batches) >= MANY_BATCHES:
                yield from in_processes(partial(_observed, function), batches, cores)
                return
            for batch in batches:
                yield _observed(function, batch)
        finally:
            kept(None, lambda: None)


class Cluster:
    """The workers of a Dask scheduler.

    `device` is `compute.device`: "cuda" insists on GPU workers, "cpu" leaves them alone.
    """

    def __init__(self, client: Client, device: str = "auto") -> None:
        self.client, self.device, self.calls = client, device, Calls(client)

    def lanes(self, gpu: bool) -> int:
        """Tell how many calls run at a time."""
        return max(self._claiming(self._resource(gpu)), 1)

    def each(self, function: Callable[[Batch], Any], batches: Iterable[Batch], gpu: bool) -> Iterator[Done]:
        """Call `function` on every batch, some batches ahead of what was taken."""
        resource = self._resource(gpu)
        waiting: deque[Future[Done]] = deque()
        try:
            for batch in batches:
                call = self.client.submit(_called, function, batch, resources={resource: 1}, pure=False)
                waiting.append(call)
                if len(waiting) > BATCHES_A_WORKER * self._claiming(resource):
                    yield self._result(waiting[0], resource)
                    waiting.popleft()
            while waiting:
                yield self._result(waiting[0], resource)
                waiting.popleft()
        finally:
            self.client.cancel(list(waiting), force=True)

    def _result(self, future: "Future[Done]", resource: str) -> Done:
        """Return what the call gave; WorkersError when there is nothing left to run it on."""
        follower = self.calls.follower(future)
        try:
            last_seen = time.monotonic()
            while not _is_done(future):
                follower.show_new()
                stop_if_requested()
                last_seen = time.monotonic() if self._claiming(resource) else last_seen
                if time.monotonic() - last_seen > WAIT_FOR_WORKERS_S:
                    raise WorkersError(f"{self._name}: no worker claims {resource}; start one with `cereals worker`")
            follower.show_new()
            return future.result()
        except KilledWorker as error:
            raise WorkersError(f"{self._name}: {error}; look into the workers' logs, then run again") from None
        except (FutureCancelledError, FuturesCancelledError, OSError) as error:
            if future.status == "error":  # the call's own
                raise
            raise WorkersError(f"{self._name}: lost; start it again, then run again") from error
        finally:
            follower.close()

    def _claiming(self, resource: str) -> int:
        """Count the workers that claim the resource."""
        workers = self.client.scheduler_info()["workers"].values()
        return sum(resource in worker["resources"] for worker in workers)

    def _resource(self, gpu: bool) -> str:
        if not gpu or self.device == "cpu":
            return CPU
        return GPU if self.device == "cuda" or self._claiming(GPU) else CPU

    @property
    def _name(self) -> str:
        return f"Dask scheduler {self.client.scheduler.address}" if self.client.scheduler else "Dask scheduler"


def _is_done(future: "Future[Done]") -> bool:
    """Tell whether it ends within a second."""
    try:
        wait(future, timeout=1.0)
    except TimeoutError:
        return False
    return True


def _observed(function: Callable[[Batch], Any], batch: Batch) -> Done:
    reset_peak()
    return Done(function(batch), peak_bytes(), _this_host())


def _called(function: Callable[[Batch], Any], batch: Batch) -> Done:
    """Call it on a worker, where the flow is told of it."""
    with told_to(Call()):
        return _observed(function, batch)


def _this_host() -> str:
    """Name the host, and the Dask worker there if this is one."""
    try:
        return f"{socket.gethostname()} {get_worker().name}"
    except ValueError:
        return socket.gethostname()


class _Kept(threading.local):
    key: object = None
    value: Any = None


_kept = _Kept()


def kept(key: object, make: Callable[[], Made]) -> Made:
    """Return what `make` gives, made once while a thread asks for the same key; then it makes room for the next."""
    if _kept.key != key:
        _kept.key = _kept.value = None
        _kept.value = make()
        _kept.key = key
    value: Made = _kept.value
    return value


_workers: ContextVar[Workers] = ContextVar("workers", default=ThisProcess())  # noqa: B039  (it holds nothing)


def current_workers() -> Workers:
    """Return what stages run on now."""
    return _workers.get()


@contextmanager
def computing(compute: Compute) -> Iterator[Workers]:
    """Have stages run where the settings say, until the block ends; inside of another such block, where that says."""
    if not isinstance(current_workers(), ThisProcess):
        yield current_workers()
        return
    with _opened(compute) as workers:
        token = _workers.set(workers)
        try:
            yield workers
        finally:
            _workers.reset(token)


@contextmanager
def _opened(compute: Compute) -> Iterator[Workers]:
    several = compute.device != "cpu" and torch.cuda.device_count() > 1
    wanted = ("local" if several else "none") if compute.cluster == "auto" else compute.cluster
    if wanted == "none":
        yield ThisProcess()
    elif wanted == "local":
        loopback = {"cls": Scheduler, "options": {"host": LOOPBACK, "dashboard": False}}
        workers = worker_specs(host=LOOPBACK, silence_logs=logging.ERROR)
        with SpecCluster(workers, loopback, silence_logs=logging.ERROR) as local, Client(local) as client:
            yield Cluster(client, compute.device)
    else:
        with _client(wanted) as client:
            yield Cluster(client, compute.device)


def _client(address: str) -> Client:
    try:
        return Client(address, timeout=20)
    except (OSError, ValueError) as error:
        raise WorkersError(
            f'compute.cluster = "{address}": no Dask scheduler answers ({error}); start one with `dask scheduler`'
        ) from None


def dask_setup(worker: Worker) -> None:
    """Let whoever started a worker answer Ctrl-C, which a terminal sends to all; Dask calls this in each of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def worker_specs(**options: Any) -> dict[str, dict[str, Any]]:
    """Describe this host's workers for Dask: one that claims CPU and sees no CUDA device; one with GPU for each device.

    `options` are further ones of Dask's `Nanny`. Dask is told no limit of memory: shards bound it, and what trainings
    need is projected before a campaign starts.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    given = {"cpu": (CPU, ""), **{f"gpu-{device}": (GPU, device) for device in devices}}
    return {
        name: {
            "cls": Nanny,
            "options": {
                "nthreads": 1,
                "resources": {resource: 1},
                "env": {"CUDA_VISIBLE_DEVICES": device},
                "memory_limit": 0,
                "preload": [__name__],
                **options,
            },
        }
        for name, (resource, device) in given.items()
    }
