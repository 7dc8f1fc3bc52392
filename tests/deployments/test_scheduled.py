"""Flows that deployments run: what their forms take, when they leave, what they are called and how they end."""

import os
import re
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deployed import ROOT, write_toml
from prefect import Flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import read_settings
from deployments import scheduled
from tasks.running.lock import locked


def schema_of(flow: Flow[..., Any]) -> dict[str, Any]:
    return parameter_schema(flow).model_dump()


@pytest.mark.parametrize("flow", [scheduled.campaign, scheduled.study, scheduled.report], ids=lambda flow: flow.name)
def test_a_form_names_and_explains_every_parameter(flow: Flow[..., Any]) -> None:
    shown = schema_of(flow)["properties"]
    assert {name: field["title"] for name, field in shown.items() if field["title"] == name} == {}
    assert all(field["description"] for field in shown.values())


@pytest.mark.parametrize(
    "wrong",
    [{"file": "streets"}, {"rounds": 0}, {"rounds": 1.5}, {"until": "24:00"}, {"until": "6:00"}, {"until": "06:60"}],
    ids=str,
)
def test_a_form_refuses_nonsense(wrong: dict[str, Any]) -> None:
    schema, right = schema_of(scheduled.campaign), {"file": "streets.toml", "rounds": 1, "until": "06:00"}
    assert validate(right, schema) == []
    assert len(validate({**right, **wrong}, schema)) == 1


@pytest.mark.parametrize(
    ("zone", "clock", "now", "expected"),
    [
        ("UTC", "06:00", "2026-01-10T05:59:00+00:00", "2026-01-10T06:00:00+00:00"),
        ("UTC", "06:00", "2026-01-10T06:00:00+00:00", "2026-01-11T06:00:00+00:00"),
        ("UTC", "00:00", "2026-12-31T23:59:59+00:00", "2027-01-01T00:00:00+00:00"),
        ("America/New_York", "06:00", "2026-01-10T12:00:00+00:00", "2026-01-11T06:00:00-05:00"),
        ("Europe/Berlin", "06:00", "2026-03-28T22:00:00+00:00", "2026-03-29T06:00:00+02:00"),  # summer time began
        ("Europe/Berlin", "06:00", "2026-10-24T21:00:00+00:00", "2026-10-25T06:00:00+01:00"),  # and ended
    ],
)
def test_the_next_time_of_day(zone: str, clock: str, now: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    found = scheduled.next_time(clock, datetime.fromisoformat(now))
    monkeypatch.undo()
    time.tzset()
    assert found == datetime.fromisoformat(expected)


def test_a_run_is_named_by_its_campaign_and_by_the_file_where_that_is_broken(
    small: CampaignSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(file: Path) -> str:
        monkeypatch.setattr(scheduled, "flow_run", SimpleNamespace(parameters={"file": str(file)}))
        return scheduled.run_name()

    file = write_toml(small, tmp_path / "streets.toml")
    assert name(file) == "small"
    assert name(ROOT / "deployments/recipes/streets-study.toml") == "streets-study"
    file.write_text("name = ")
    assert name(file) == "streets"
    assert name(tmp_path / "missing.toml") == "missing"
    (tmp_path / "folder.toml").mkdir()
    assert name(tmp_path / "folder.toml") == "folder"


def test_a_written_file_reads_as_the_settings_it_was_written_from(small: CampaignSettings, tmp_path: Path) -> None:
    assert read_settings(write_toml(small, tmp_path / "small.toml")) == small


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_finds_another_at_work_is_neither_done_nor_failed(small: CampaignSettings, tmp_path: Path) -> None:
    file = write_toml(small, tmp_path / "small.toml")
    small.path.mkdir()
    with locked(small.path / "lock"):
        state = scheduled.campaign(str(file), return_state=True)
    assert (state.name, state.type.value) == ("AlreadyRunning", "CANCELLED")
    assert f"process {os.getpid()} on " in (state.message or "")


@pytest.mark.usefixtures("prefect_server")
def test_a_run_of_a_broken_file_fails_with_its_mistakes(tmp_path: Path) -> None:
    file = tmp_path / "streets.toml"
    file.write_text('name = "streets"\n[stop]\nrounds = "many"')
    state = scheduled.campaign(str(file), return_state=True)
    assert state.name == "Failed"
    assert re.search(r"SettingsError: .*streets.toml: 2 mistakes.*stop.rounds = 'many'", state.message or "", re.DOTALL)
