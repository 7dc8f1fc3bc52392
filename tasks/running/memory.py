"""The process's memory: its peak, stage by stage, what it holds now, and how far it may grow."""

import ctypes
import resource
from pathlib import Path

import psutil
from distributed.system import memory_limit

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of options in malloc.h."""
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for what comes next (glibc; elsewhere nothing happens).

    The tensors of every step are as large as those of the step before. To hand them back to the system in between and
    get them again, empty, took a tenth of a training's time on a CPU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(option, 1 << 30)


def reset_peak() -> None:
    """Start a new peak where the system can (Linux); elsewhere the peak stays that of the whole process."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return


def peak_bytes() -> int:
    """Return the largest resident memory since `reset_peak`, bytes."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def resident_bytes() -> int:
    """Return the memory that the process holds now, bytes."""
    return int(psutil.Process().memory_info().rss)


def available_bytes() -> int:
    """Tell what memory the process may hold: what it has and what is free, within its control group's limit, bytes."""
    return min(resident_bytes() + int(psutil.virtual_memory().available), memory_limit())
