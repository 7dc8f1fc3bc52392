"""Benchmarks of the stages, kept as JSON: what was measured on machines of a kind, and the table that shows it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cereals_core.errors import DataError
from tasks.pages.text import table
from tasks.pages.wording import ABSENT

HEADER = ("stage", "setting", "ours", "bare loop", "ratio", "public way", "times", "floor", "of it")
LEGEND = (
    "Rates a second, the least and the most of the runs above. "
    "Bare loop: the arithmetic alone, in PyTorch or NumPy, on what is in memory; ratio: ours / bare. "
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


@dataclass(frozen=True)
class Run:
    """What was measured on one machine of a kind; such machines differ, and so do their neighbours."""

    machine: Machine
    rows: tuple[Measured, ...]


def with_rows(runs: Sequence[Run], machine: Machine, rows: Sequence[Measured]) -> list[Run]:
    """Put rows into the run of this processor and day, in place of those of the same stage and setting."""
    key = (machine.processor, machine.day)
    before = next((run.rows for run in runs if (run.machine.processor, run.machine.day) == key), ())
    new = {(row.stage, row.setting): row for row in rows}
    kept = [new.pop((row.stage, row.setting), row) for row in before]
    others = [run for run in runs if (run.machine.processor, run.machine.day) != key]
    return [*others, Run(machine, (*kept, *new.values()))]


def write(file: Path, runs: Sequence[Run]) -> None:
    """Write the runs of a kind of machine to a JSON file; folders are made as needed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([asdict(run) for run in runs], indent=1) + "\n")


def read(file: Path) -> list[Run]:
    """Read a file of `write`; DataError when it is something else."""
    try:
        runs = [
            Run(Machine(**each["machine"]), tuple(Measured(**row) for row in each["rows"]))
            for each in json.loads(file.read_text())
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: no benchmarks ({error}); `make bench` writes them anew") from None
    if not runs:
        raise DataError(f"{file}: no benchmarks (it is empty); `make bench` writes them anew")
    return runs


def benchmark_text(runs: Sequence[Run]) -> str:
    """Write the table for the terminal, below a line for each machine and above the LEGEND."""
    return f"{_described(runs)}\n\n{table(list(HEADER), _lines(runs))}\n\n{LEGEND}"


def benchmark_markdown(runs: Sequence[Run]) -> str:
    """Write the same as a Markdown page."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (HEADER, *_lines(runs))]
    lines.insert(1, "|---" * 2 + "|--:" * (len(HEADER) - 2) + "|")
    return f"# {runs[0].machine.name}\n\n{_described(runs)}\n\n" + "\n".join(lines) + f"\n\n{LEGEND}\n"


def _described(runs: Sequence[Run]) -> str:
    return "\n\n".join(described(run.machine) for run in runs)


def described(machine: Machine) -> str:
    """Describe a machine in a line."""
    return (
        f"{machine.name}: {machine.processor}, {machine.cores} cores, PyTorch {machine.torch}, {machine.day}; "
        f"{machine.peak_flops / 1e9:.0f} GFLOP/s, memory {machine.memory_bytes_s / 1e9:.1f} GB/s, "
        f"disk {machine.disk_bytes_s / 1e6:.0f} MB/s"
    )


def _lines(runs: Sequence[Run]) -> list[list[str]]:
    """Write a line for each stage and setting, its figures as ranges over the runs that have it."""
    found: dict[tuple[str, str], list[Measured]] = {}
    for run in runs:
        for row in run.rows:
            found.setdefault((row.stage, row.setting), []).append(row)
    return [[*key, *_cells(rows)] for key, rows in found.items()]


def _cells(rows: Sequence[Measured]) -> list[str]:
    cells = [_range([row.ours for row in rows], 3)]
    for name in ("bare", "public", "floor"):
        there = [(row.ours, rate) for row in rows if (rate := getattr(row, name))]
        cells += [_range([rate for _, rate in there], 3), _range([ours / rate for ours, rate in there], 2)]
    return cells


def _range(values: Sequence[float], digits: int) -> str:
    if not values:
        return ABSENT
    ends = dict.fromkeys(_rounded(end, digits) for end in (min(values), max(values)))
    return " to ".join(ends)


def _rounded(value: float, digits: int) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.{digits}g}"
