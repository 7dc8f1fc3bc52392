"""How long calls take on this machine, beside reading ahead or alone, and how fast a disk is."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import numpy as np

from cereals_core.location import is_on_disk
from tasks.running.prefetch import prefetched
from tasks.store.storage import telling_of_storage

Read = TypeVar("Read")
LIMIT_S = 3.0
"""So long one rate is measured; what takes longer is done once."""
MOST_CALLS, MOST_IMAGES = 5, 20
DISK_BYTES, CHUNK_BYTES = 100_000_000, 4 << 20


@dataclass(frozen=True)
class Timed:
    """Seconds of a unit of work; and whether more of them go into waiting for what is read than into the work."""

    unit_s: float
    waits: bool = False


def elapsed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def seconds(call: Callable[[], Any]) -> float:
    """Median seconds of a few calls, after one that is slower; of the first alone if that takes long."""
    first_s = elapsed(call)
    if first_s > LIMIT_S:
        return first_s
    elapsed_s: list[float] = []
    while len(elapsed_s) < MOST_CALLS and sum(elapsed_s) < LIMIT_S:
        elapsed_s.append(elapsed(call))
    return median(elapsed_s)


def read_ahead(
    image_ids: Sequence[str], read: Callable[[str], Read], work: Callable[[list[Read]], Any], size: int = 1
) -> Timed:
    """Seconds an image, where the next ones are read while `size` at a time are worked on; a first time is left out."""
    started = time.perf_counter()
    first = [read(image_ids[0])] * size
    first_s = elapsed(lambda: work(first))
    if first_s > LIMIT_S:
        return Timed(first_s / size)
    batches = min(-(-MOST_IMAGES // size), max(1, int(LIMIT_S / (time.perf_counter() - started))))
    started, working_s = time.perf_counter(), 0.0
    items = (item for _, item in prefetched(read, islice(cycle(image_ids), batches * size)))
    while batch := list(islice(items, size)):
        begun = time.perf_counter()
        work(batch)
        working_s += time.perf_counter() - begun
    total_s = time.perf_counter() - started
    return Timed(total_s / (batches * size), waits=working_s < total_s / 2)


def disk_rates(folder: Path) -> tuple[float, float]:
    """Bytes a second written to and read from the disk of a folder; infinite for an object store, which is not tried.

    The file that is written has no name, and is gone when it is closed.
    """
    if not is_on_disk(folder):
        return inf, inf
    there = next(each for each in (folder, *folder.parents) if each.exists())
    total = min(DISK_BYTES, shutil.disk_usage(there).free // 10)
    with telling_of_storage(there), tempfile.TemporaryFile(dir=there, buffering=0) as file:
        write_s = elapsed(lambda: _write(file, total))
        written = file.tell()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        read_s = elapsed(lambda: _read(file))
    return max(written, 1) / write_s, max(written, 1) / read_s


def _write(file: Any, total: int) -> None:
    chunk = np.random.default_rng(0).bytes(CHUNK_BYTES)
    ends_at = time.monotonic() + LIMIT_S
    while file.tell() < total and time.monotonic() < ends_at:
        file.write(chunk)
    os.fsync(file.fileno())


def _read(file: Any) -> None:
    while file.read(CHUNK_BYTES):
        pass
