"""Benchmarks of the stages, kept as JSON: what was measured on a machine, and the table that shows it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cereals_core.errors import DataError
from tasks.pages.text import table
from tasks.pages.wording import ABSENT

HEADER = ("stage", "setting", "ours", "bare loop", "ratio", "public way", "times", "floor", "of it")
LEGEND = (
    "Rates a second. Bare loop: the arithmetic alone, in PyTorch or NumPy, on what is in memory; ratio: ours / bare. "
    "Public way: as published codes describe it; times: ours / theirs. Floor: operations over the machine's peak, or "
    "bytes over its disk's rate, whichever binds; of it: ours / floor."
)


@dataclass(frozen=True)
class Machine:
    """A measured machine: peak in float32 operations a second, memory and disk (cold) in bytes a second."""

    name: str
    processor: str
    cores: int
    torch: str
    day: str
    peak_flops: float
    memory_bytes_s: float
    disk_bytes_s: float


@dataclass(frozen=True)
class Measured:
    """One row: units a second of ours, of the bare loop, of the public way, and of the floor; None: not measured."""

    stage: str
    setting: str
    ours: float
    bare: float | None = None
    public: float | None = None
    floor: float | None = None


def write(file: Path, machine: Machine, rows: Sequence[Measured]) -> None:
    """Write a machine and its rows to a JSON file; folders are made as needed."""
    content = {"machine": asdict(machine), "rows": [asdict(row) for row in rows]}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, indent=1) + "\n")


def read(file: Path) -> tuple[Machine, list[Measured]]:
    """Read a file of `write`; DataError when it is something else."""
    try:
        content = json.loads(file.read_text())
        return Machine(**content["machine"]), [Measured(**row) for row in content["rows"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no benchmarks ({error}); `make bench` writes them anew") from None


def benchmark_text(machine: Machine, rows: Sequence[Measured]) -> str:
    """Write the table for the terminal, below the line that describes the machine and above the LEGEND."""
    return f"{described(machine)}\n\n{table(list(HEADER), [_cells(row) for row in rows])}\n\n{LEGEND}"


def benchmark_markdown(machine: Machine, rows: Sequence[Measured]) -> str:
    """Write the same as a Markdown page."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADER, *map(_cells, rows))]
    lines.insert(1, "|---" * 2 + "|--:" * (len(HEADER) - 2) + "|")
    return f"# {machine.name}\n\n{described(machine)}\n\n" + "\n".join(lines) + f"\n\n{LEGEND}\n"


def described(machine: Machine) -> str:
    """Describe a machine in a line."""
    return (
        f"{machine.name}: {machine.processor}, {machine.cores} cores, PyTorch {machine.torch}, {machine.day}; "
        f"{machine.peak_flops / 1e9:.0f} GFLOP/s, memory {machine.memory_bytes_s / 1e9:.1f} GB/s, "
        f"disk {machine.disk_bytes_s / 1e6:.0f} MB/s"
    )


def _cells(row: Measured) -> list[str]:
    pairs = [(each, row.ours / each if each else None) for each in (row.bare, row.public, row.floor)]
    return [
        row.stage,
        row.setting,
        _rounded(row.ours, 3),
        *(cell for rate, ratio in pairs for cell in (_rounded(rate, 3), _rounded(ratio, 2))),
    ]


def _rounded(value: float | None, digits: int) -> str:
    if value is None:
        return ABSENT
    return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}g}"
