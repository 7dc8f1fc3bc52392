"""metrics.prom: its figures by hand, read by Prometheus' own parser; manifests are read once."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from small_campaign import small_settings

from tasks.store.layout import Campaign
from tasks.store.products import MANIFEST, Recipe, making
from tasks.telling.metrics import EXPOSITION, write_metrics

Samples = dict[tuple[str, str, str], float]
NOON = 1_793_534_400
"""2026-11-01T12:00:00Z."""


def make(campaign: Campaign, stage: str, number: int | None, content: bytes = b"x" * 100, **facts: object) -> Path:
    folder = campaign.stage(stage, number)
    with making(folder, Recipe(stage, 1, {"round": number}, {})) as (work, noted):
        (work / "table").write_bytes(content)
        noted.update(facts)
    return folder / MANIFEST


def retold(file: Path, **changes: object) -> None:
    """Write a manifest again as if its stage had written this."""
    manifest = json.loads(file.read_text()) | changes
    manifest.pop("checksum")
    manifest["checksum"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    file.write_text(json.dumps(manifest))


def samples(campaign: Campaign) -> Samples:
    """Value by metric, round and stage, as Prometheus reads the file that is written now."""
    write_metrics(campaign)
    families = text_string_to_metric_families((campaign.folder / EXPOSITION).read_text())
    found = [sample for family in families for sample in family.samples]
    assert {sample.labels["campaign"] for sample in found} == {campaign.settings.name}
    return {(each.name, each.labels.get("round", "-"), each.labels.get("stage", "-")): each.value for each in found}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    settings = small_settings(tmp_path / "campaign")
    (tmp_path / "campaign").mkdir()
    return Campaign(settings.path, settings)


def test_figures_of_a_made_campaign_by_hand(campaign: Campaign) -> None:
    retold(make(campaign, "pool", None, images=10), elapsed_s=0.5, made_at="2026-11-01T11:00:00Z")
    trained = make(campaign, "train-seg", 0, units=30, units_s=12.0, peak_bytes=2**30)
    retold(trained, elapsed_s=12.0, made_at="2026-11-01T12:00:00Z")
    evaluated = make(campaign, "evaluate", 0, b"y" * 7, miou=0.25, clicks=41.5, pixels=6000, images=4)
    retold(evaluated, elapsed_s=2.0, made_at="2026-11-01T11:30:00Z")
    found = samples(campaign)
    assert {place: value for place, value in found.items() if place[0] != "cereals_stage_bytes"} == {
        ("cereals_stage_seconds", "", "pool"): 0.5,
        ("cereals_stage_seconds", "0", "train-seg"): 12.0,
        ("cereals_stage_seconds", "0", "evaluate"): 2.0,
        ("cereals_stage_peak_memory_bytes", "0", "train-seg"): 2**30,
        ("cereals_stage_units_per_second", "0", "train-seg"): 2.5,
        ("cereals_round_miou", "0", "-"): 0.25,
        ("cereals_round_clicks", "0", "-"): 41.5,
        ("cereals_round_pixels", "0", "-"): 6000,
        ("cereals_rounds_done", "-", "-"): 0,
        ("cereals_last_stage_timestamp_seconds", "-", "-"): NOON,
    }
    assert found["cereals_stage_bytes", "0", "evaluate"] == 7
    assert found["cereals_stage_bytes", "", "pool"] == 100


def test_rates_are_those_of_the_work_alone_and_rounds_are_counted_by_their_reports(campaign: Campaign) -> None:
    for number in (0, 1):
        make(campaign, "info-map", number, units=8, units_s=2.0)
    make(campaign, "report", 0)
    found = samples(campaign)
    assert found["cereals_stage_units_per_second", "1", "info-map"] == 4
    assert ("cereals_stage_units_per_second", "0", "report") not in found
    assert found["cereals_rounds_done", "-", "-"] == 1
    make(campaign, "report", 1)
    assert samples(campaign)["cereals_rounds_done", "-", "-"] == 2


def test_a_new_campaign_has_no_rounds_and_no_last_stage(campaign: Campaign) -> None:
    assert samples(campaign) == {("cereals_rounds_done", "-", "-"): 0}


def test_help_and_type_stand_before_every_metric(campaign: Campaign) -> None:
    make(campaign, "evaluate", 0, miou=0.5, clicks=1, pixels=1)
    write_metrics(campaign)
    lines = (campaign.folder / EXPOSITION).read_text().splitlines()
    named = {line.split("{")[0] for line in lines if not line.startswith("#")}
    assert len(named) == 7
    assert all(f"# TYPE {name} gauge" in lines for name in named)
    assert all(any(line.startswith(f"# HELP {name} ") for line in lines) for name in named)


def test_labels_are_escaped(campaign: Campaign) -> None:
    odd = 'streets "old"\\new\nline'
    named = Campaign(campaign.folder, campaign.settings.model_copy(update={"name": odd}))
    make(named, "report", 0)
    assert samples(named)["cereals_rounds_done", "-", "-"] == 1
    assert 'campaign="streets \\"old\\"\\\\new\\nline"' in (campaign.folder / EXPOSITION).read_text()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"checksum": "a"}', "\x00"])
def test_a_manifest_that_is_no_manifest_is_left_out(campaign: Campaign, content: str) -> None:
    make(campaign, "nms", 0).write_text(content)
    assert samples(campaign) == {("cereals_rounds_done", "-", "-"): 0}


def test_a_manifest_that_was_changed_is_left_out(campaign: Campaign) -> None:
    file = make(campaign, "evaluate", 0, miou=0.5, clicks=1, pixels=1)
    file.write_text(file.read_text().replace("0.5", "0.9"))
    assert ("cereals_round_miou", "0", "-") not in samples(campaign)


def test_files_beside_a_manifest_and_working_folders_do_not_matter(campaign: Campaign) -> None:
    (make(campaign, "nms", 0).parent / "table").unlink()
    (campaign.round(0) / ".evaluate.0123456789abcdef").mkdir()
    found = samples(campaign)
    assert found["cereals_stage_bytes", "0", "nms"] == 100
    assert not any(stage == "evaluate" for _, _, stage in found)


def test_only_new_manifests_are_read(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    make(campaign, "evaluate", 0, miou=0.25, clicks=1, pixels=1)
    samples(campaign)
    read: list[Path] = []
    read_bytes = Path.read_bytes

    def counted(file: Path) -> bytes:
        if file.name == MANIFEST:
            read.append(file)
        return read_bytes(file)

    monkeypatch.setattr(Path, "read_bytes", counted)
    samples(campaign)
    assert read == []
    again = make(campaign, "evaluate", 0, miou=0.75, clicks=1, pixels=1)
    read.clear()
    assert samples(campaign)["cereals_round_miou", "0", "-"] == 0.75
    assert read == [again]


def test_a_reader_sees_the_old_file_or_the_new_one(campaign: Campaign, monkeypatch: pytest.MonkeyPatch) -> None:
    write_metrics(campaign)
    before = (campaign.folder / EXPOSITION).read_bytes()
    make(campaign, "report", 0)

    def fail(descriptor: int) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="full"):
            write_metrics(campaign)
    assert (campaign.folder / EXPOSITION).read_bytes() == before
    assert [path.name for path in campaign.folder.iterdir() if path.is_file()] == [EXPOSITION]
