"""Who holds a lock: a process of some host, what it writes of itself, and whether it still lives."""

import os
import socket
from pathlib import Path
from typing import Any

import psutil

from cereals_core.errors import LockedError

Record = dict[str, Any]
"""What a holder writes: its name as `holder`, and what tells it from all others; without a name there is none."""


def this_process() -> Record:
    """Describe this process among those of all hosts."""
    return {
        "holder": f"{os.getpid()} on {socket.gethostname()}",
        "kernel": kernel(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
    }


def may_live(record: Record) -> bool:
    """Tell whether its holder may be alive: not if there is none, or if it is a process of this kernel that is gone."""
    if not record.get("holder"):
        return False
    if record["kernel"] != kernel():
        return True
    try:
        process = psutil.Process(record["pid"])
        return bool(process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kernel() -> str:
    """Name what numbers processes: hosts and containers may share a name; containers of one host share no numbers."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()


def locked_error(file: Path, holder: str) -> LockedError:
    """Say who holds the lock at `file`."""
    return LockedError(f"{file.parent}: process {holder} is running it; wait or stop that")
