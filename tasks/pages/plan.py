"""What a campaign will take, for the terminal, before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.pages.text import table
from tasks.pages.wording import ABSENT, duration, plural, size

HEADER = ("stage", "a round", "each", "time a round", "all rounds", "time is", "memory", "CUDA memory", "disk")


@dataclass(frozen=True)
class StagePlan:
    """One stage: its work in a round, the time of a round and of all to come, and what it needs.

    Times are None where they were not measured, bytes where nothing is known of them.
    """

    stage: str
    units: float
    unit: str
    round_s: float | None
    total_s: float | None
    is_recorded: bool
    memory_bytes: int | None
    device_bytes: int | None
    disk_bytes: int | None


@dataclass(frozen=True)
class PlanFacts:
    """All that is said of a plan; `there_bytes` are memory, CUDA memory and disk that there are, None if unknown.

    `notes` tell what the plan rests on, `shortages` what does not fit, `advice` what takes most of the time, and
    `otherwise` what another way would take; empty where nothing is told.
    """

    title: str
    notes: Sequence[str]
    stages: Sequence[StagePlan]
    disk_bytes: int
    there_bytes: Sequence[int | None]
    shortages: Sequence[str]
    advice: str
    otherwise: str = ""

    @property
    def total_s(self) -> float | None:
        """Seconds of all stages; None if one is unknown."""
        known = [each.total_s for each in self.stages if each.total_s is not None]
        return sum(known) if len(known) == len(self.stages) else None


def plan_text(facts: PlanFacts) -> str:
    """Write title, notes, a row a stage, totals, what there is, and what is missing."""
    lines = [facts.title, *facts.notes, "", _stage_table(facts), *filter(None, (facts.advice, facts.otherwise))]
    lines += [f"shortage: {each}" for each in facts.shortages] or ["memory and disk will do"]
    return "\n".join(lines)


def _stage_table(facts: PlanFacts) -> str:
    """Set a row a stage; nothing is said of CUDA memory where none is needed."""
    rows = [_row(each) for each in facts.stages]
    most = [
        max((getattr(each, name) or 0 for each in facts.stages), default=0) for name in ("memory_bytes", "device_bytes")
    ]
    rows += [
        ["all", "", "", "", _time(facts.total_s), "", size(most[0]), size(most[1]), size(facts.disk_bytes)],
        ["there is", "", "", "", "", "", *(_size(each) for each in facts.there_bytes)],
    ]
    kept = [index for index, name in enumerate(HEADER) if name != "CUDA memory" or most[1]]
    return table([HEADER[index] for index in kept], [[row[index] for index in kept] for row in rows])


def _row(each: StagePlan) -> list[str]:
    return [
        each.stage,
        plural(round(each.units), each.unit),
        _time(each.round_s / each.units) if each.round_s is not None and each.units else ABSENT,
        _time(each.round_s),
        _time(each.total_s),
        ("recorded" if each.is_recorded else "measured") if each.round_s is not None else ABSENT,
        *(_size(count) for count in (each.memory_bytes, each.device_bytes, each.disk_bytes)),
    ]


def _time(elapsed_s: float | None) -> str:
    """Write `3 min 05 s`, `4.2 s`, `12.3 ms` or `0.021 ms`; a dash if nobody knows."""
    if elapsed_s is None:
        return ABSENT
    return duration(elapsed_s) if elapsed_s >= 1 else f"{1000 * elapsed_s:.3g} ms"


def _size(count: int | None) -> str:
    return ABSENT if count is None else size(count)
