from dataclasses import replace
from pathlib import Path

import pytest
from checkout import ROOT
from typer.testing import CliRunner

from cereals_core.errors import DataError
from deployments.cli import app
from tasks.pages.benchmarks import (
    Machine,
    Measured,
    Run,
    benchmark_markdown,
    benchmark_text,
    read,
    with_rows,
    write,
)

MACHINE = Machine("cpu-2-cores", "Some CPU", 2, "2.13.0", "2026-11-24", 155e9, 26.2e9, 1.972e9)
OTHER = replace(MACHINE, processor="Other CPU", peak_flops=300e9)
ROWS = (Measured("info-map", "entropy", 9.5, 10.0, 0.5, 38.0), Measured("train-seg", "steps", 1234.4))
RUN = Run(MACHINE, ROWS)
FOLDER = ROOT / "docs/benchmarks"
KEPT = sorted(file for file in FOLDER.glob("*.json") if not file.stem.endswith("-growth"))


def test_a_row_says_rates_and_ratios_and_a_dash_where_nothing_was_measured() -> None:
    page = benchmark_markdown([RUN])
    assert "| info-map | entropy | 9.5 | 10 | 0.95 | 0.5 | 19 | 38 | 0.25 |" in page.splitlines()
    assert "| train-seg | steps | 1,234 | - | - | - | - | - | - |" in page.splitlines()
    assert "155 GFLOP/s, memory 26.2 GB/s, disk 1972 MB/s" in page
    assert all(word in benchmark_text([RUN]) for word in ("Some CPU", "info-map", "0.95", "1,234"))


def test_figures_are_ranges_over_the_machines_of_a_kind() -> None:
    runs = [RUN, Run(OTHER, (Measured("info-map", "entropy", 15.0, 20.0), Measured("nms", "maps", 7.0)))]
    lines = benchmark_markdown(runs).splitlines()
    assert "| info-map | entropy | 9.5 to 15 | 10 to 20 | 0.75 to 0.95 | 0.5 | 19 | 38 | 0.25 |" in lines
    assert "| nms | maps | 7 | - | - | - | - | - | - |" in lines
    assert [line.split(":")[1].split(",")[0] for line in lines if "GFLOP/s" in line] == [" Some CPU", " Other CPU"]


def test_rows_take_the_place_of_those_of_the_same_processor_and_day() -> None:
    again, new = Measured("info-map", "entropy", 9.0), Measured("nms", "maps", 7.0)
    assert with_rows([RUN], MACHINE, [again, new]) == [Run(MACHINE, (again, ROWS[1], new))]
    assert with_rows([RUN], OTHER, [again]) == [RUN, Run(OTHER, (again,))]
    assert with_rows([], MACHINE, ROWS) == [RUN]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "new/machine.json", [RUN])
    assert read(tmp_path / "new/machine.json") == [RUN]


@pytest.mark.parametrize("content", ["", "[]", '[{"machine": {}, "rows": []}]', '{"machine": 1}'])
def test_what_is_no_benchmark_is_told_with_its_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "machine.json").write_text(content)
    with pytest.raises(DataError, match=r"machine\.json: no benchmarks .*make bench"):
        read(tmp_path / "machine.json")


@pytest.mark.parametrize("file", KEPT, ids=lambda file: file.stem)
def test_the_page_of_a_machine_is_that_of_its_figures(file: Path) -> None:
    assert file.with_suffix(".md").read_text() == benchmark_markdown(read(file))


def test_the_command_shows_every_machine() -> None:
    shown = CliRunner().invoke(app, ["benchmarks"])
    assert shown.exit_code == 0
    assert KEPT
    assert all(read(file)[0].machine.name in shown.output for file in KEPT)
