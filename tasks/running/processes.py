"""Arithmetic on all cores of this machine, by processes.

Threads do not help: a call of NumPy on one map takes some microseconds, and threads that pass the interpreter's lock to
each other so often get no further than one of them does. On two cores, selection from 100,000 images of 1024 x 2048 px,
their maps read from the disk, took 67 s in one process and 50 s in two.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

import dask
import torch

from tasks.running.memory import keep_freed_memory

Batch = TypeVar("Batch")
Result = TypeVar("Result")
BATCHES_A_WAVE = 8
"""Batches for each process before results are handed on: so many are in memory at a time."""


def in_processes(function: Callable[[Batch], Result], batches: Sequence[Batch], count: int) -> Iterator[Result]:
    """Yield results of `function`, which is pickled, on every batch in their order, by Dask on so many processes."""
    size = BATCHES_A_WAVE * count
    with ProcessPoolExecutor(count, mp_context=_context(_module_of(function)), initializer=_begin) as pool:
        for start in range(0, len(batches), size):
            calls = [dask.delayed(partial(function, batch), pure=False)() for batch in batches[start : start + size]]
            yield from dask.compute(*calls, scheduler="processes", pool=pool)


@cache
def _context(module: str) -> BaseContext:
    """Fork processes from a server without threads, which imports a module for all and ends with this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def _module_of(function: Callable[..., Any]) -> str:
    """Name the module of a function, or of the one that it calls first of all."""
    while isinstance(function, partial):
        function = next((each for each in function.args if callable(each)), function.func)
    return function.__module__


def _begin() -> None:
    """Take one core, keep freed memory, let the parent answer Ctrl-C, and end when it is gone, however it went."""
    torch.set_num_threads(1)
    keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
