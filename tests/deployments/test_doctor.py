"""What the doctor finds of campaign and study files, check by check, in made folders."""

import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cereals_core.errors import SettingsError
from cereals_core.settings_files import read_settings
from deployments import doctor
from deployments.doctor import examine, show
from deployments.doctor_host import Finding
from tasks.running.opening import open_campaign, writing
from tasks.store.layout import Campaign
from tasks.store.products import MANIFEST, Recipe, making

CAMPAIGN = """
name = "made"
folder = "{folder}"
{head}
[data]
format = "synthetic"
pool_images = 4
eval_images = 2
height = 60
width = 100
[model]
width = 0.03
[acquisition]
seed_images = 2
images_per_round = 1
window_px = 24
{tail}
"""
ARMS = '[study]\nstrategies = ["cereals", "random-regions"]\nseeds = [1, 2]'


@pytest.fixture(autouse=True)
def without_server() -> Iterator[None]:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path)


def written(folder: Path, head: str = "", tail: str = "", **replaced: str) -> Path:
    text = CAMPAIGN.format(folder=folder / "made", head=head, tail=tail)
    for old, new in replaced.items():
        text = text.replace(old, new)
    (folder / "made.toml").write_text(text)
    return folder / "made.toml"


def campaign_of(file: Path) -> Campaign:
    return open_campaign(read_settings(file))


def make(campaign: Campaign, stage: str, number: int | None = 0) -> Path:
    folder = campaign.stage(stage, number)
    with making(folder, Recipe(stage, 1, {"round": number}, {})) as (work, _):
        (work / "table").write_bytes(b"x" * 1000)
    return folder


def only(file: Path, check: str) -> list[Finding]:
    """What one check of a file finds, without the names of file and check."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "HOST_CHECKS", {})
        patch.setattr(doctor, "FILE_CHECKS", {check: (doctor.FILE_CHECKS | doctor.DEEP_CHECKS)[check]})
        return of(examine([file], deep=False), check)


def of(findings: list[Finding], check: str) -> list[Finding]:
    """Findings of one check of a file, without the names of file and check."""
    named = [(each, each.what.partition(f": {check}: ")[2]) for each in findings]
    return [Finding(each.level, what, each.remedy) for each, what in named if what]


def levels(findings: list[Finding]) -> list[str]:
    return [each.level for each in findings]


def test_a_finding_is_a_line_that_ends_with_its_remedy() -> None:
    findings = [Finding("ok", "8 cores"), Finding("fail", "2 mistakes\n  a: no\n  b: no", "correct them")]
    assert show(findings) == "ok    8 cores\nfail  2 mistakes; a: no; b: no; correct them"


def test_a_new_campaign_is_fine(file: Path) -> None:
    found = examine([file], deep=True)
    assert [each.what for each in of(found, "data")] == ["pool has 4 images", "eval has 2 images"]
    assert of(found, "resources")[0].what == "memory and disk will do, if all images are like the first"
    assert not [each for each in found if str(file) in each.what and each.level != "ok"]
    assert not (file.parent / "made").exists()


def test_mistakes_in_settings_fail_with_their_text(tmp_path: Path) -> None:
    found = examine([written(tmp_path, window_px="windows_px"), tmp_path / "none.toml"], deep=False)[-2:]
    assert levels(found) == ["fail", "fail"]
    assert "acquisition.windows_px: no such key" in found[0].what
    assert show(found).count("\n") == 1
    assert found[1].what.startswith(f"{tmp_path}/none.toml: no such campaign file")


def test_other_settings_than_it_was_started_with_fail(file: Path) -> None:
    with writing(campaign_of(file)):
        pass
    written(file.parent, head="seed = 5")
    found = examine([file], deep=False)[-1]
    assert found.level == "fail"
    assert "seed: 0 -> 5" in found.what


def test_data_that_does_not_open_fails(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    start, end = text.index("[data]"), text.index("[model]")
    data = f'[data]\nformat = "coco"\nroot = "{tmp_path}/none"\n'
    (tmp_path / "made.toml").write_text(text[:start] + data + text[end:])
    found = only(tmp_path / "made.toml", "data")
    assert levels(found) == ["fail"]
    assert "none" in found[0].what


def test_who_runs_it_is_named(file: Path) -> None:
    campaign = campaign_of(file)
    with writing(campaign):
        held = only(file, "lock")
    assert levels(held) == ["warn"]
    assert f"process {os.getpid()} on" in held[0].what
    assert only(file, "lock") == [Finding("ok", "nobody is running it")]


def test_what_dead_stages_left_is_warned_of_but_not_what_goes_on(file: Path) -> None:
    campaign = campaign_of(file)
    product = make(campaign, "nms")
    for name in (".nms.0123456789abcdef", ".evaluate.stale", ".info-map.12-34.linked", ".cost-map.0123456789abcdef"):
        (product.parent / name).mkdir()
        (product.parent / name / "part").write_bytes(b"x" * 2000)
    found = only(file, "leftovers")
    named = {Path(each.what.partition(": ")[0]).name for each in found}
    assert named == {".nms.0123456789abcdef", ".evaluate.stale", ".info-map.12-34.linked"}
    assert {each.level for each in found} == {"warn"}
    assert {each.what.partition(": ")[2] for each in found} == {"abandoned, 2.0 kB"}
    with writing(campaign):
        assert only(file, "leftovers") == []


def test_maps_of_past_rounds_are_no_leftovers(file: Path) -> None:
    campaign = campaign_of(file)
    for number in (0, 1, 2):
        for stage in ("info-map", "oracle-query", "report"):
            make(campaign, stage, number)
        (campaign.stage("info-map", number) / "maps.zarr").mkdir()
        (campaign.stage("info-map", number) / "maps.zarr" / "c").write_bytes(b"x")
    make(campaign, "train-seg", 3)
    assert only(file, "leftovers") == []


def test_what_does_not_fit_fails(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = SimpleNamespace(free=10)
    monkeypatch.setattr("tasks.forecast.needs.shutil.disk_usage", lambda path: full)
    found = only(file, "resources")
    assert levels(found) == ["fail"]
    assert "of disk" in found[0].what


def test_damaged_products_are_found_when_asked_for(file: Path) -> None:
    campaign = campaign_of(file)
    (make(campaign, "nms") / "table").write_bytes(b"y" * 1000)
    (make(campaign, "evaluate") / "table").unlink()
    (make(campaign, "pool", None) / MANIFEST).write_text("{}")
    make(campaign, "train-seg")
    assert of(examine([file], deep=False), "products") == []
    found = of(examine([file], deep=True), "products")
    folders = [Path(each.what.partition(": ")[0]).name for each in found if each.level == "fail"]
    assert sorted(folders) == ["evaluate", "nms", "pool"]
    assert found[-1] == Finding("ok", "read 4 products")


def test_a_cuda_device_that_is_missing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.torch.cuda, "is_available", lambda: False)
    assert levels(only(written(tmp_path, tail='[compute]\ndevice = "cuda"'), "compute")) == ["fail"]


def test_a_scheduler_that_is_silent_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "ANSWER_S", 0.3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        found = only(written(tmp_path, tail=f'[compute]\ncluster = "{address}"'), "compute")
    assert levels(found) == ["fail"]
    assert address in found[0].what


def test_workers_of_a_scheduler_are_counted_by_what_they_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[dict[str, float]] = []

    class Scheduler:
        def __init__(self, address: str, **options: object) -> None:
            assert address == "tcp://gpu-host:8786"

        def __enter__(self) -> "Scheduler":
            return self

        def __exit__(self, *error: object) -> None: ...

        def scheduler_info(self) -> dict[str, Any]:
            return {"workers": {str(index): {"resources": each} for index, each in enumerate(there)}}

    monkeypatch.setattr(doctor, "Client", Scheduler)
    file = written(tmp_path, tail='[compute]\ncluster = "tcp://gpu-host:8786"')
    assert levels(only(file, "compute")) == ["warn"]
    there += [{"GPU": 1.0}, {"GPU": 1.0}, {"CPU": 1.0}, {}]
    found = only(file, "compute")
    assert found == [Finding("ok", "tcp://gpu-host:8786: workers claim 1 CPU, 2 GPU")]


def test_a_study_is_its_campaigns(tmp_path: Path) -> None:
    file = written(tmp_path, tail=ARMS)
    found = examine([file], deep=False)
    assert f"settings are valid, 7 campaigns in {tmp_path}/made" in show(found)
    assert not [each for each in found if str(file) in each.what and each.level != "ok"]
    lock = tmp_path / "made" / "campaigns" / "cereals" / "seed-2" / "lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as stream:
        stream.write("77 on elsewhere")
        stream.flush()
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert "process 77 on elsewhere" in only(file, "lock")[0].what


def test_a_check_that_breaks_is_a_failure_and_the_others_go_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(subject: doctor.Subject) -> Iterator[Finding]:
        yield Finding("ok", "so far")
        raise ZeroDivisionError("by zero")

    def refused(subject: doctor.Subject) -> Iterator[Finding]:
        raise SettingsError("folder: not there; make it")
        yield

    monkeypatch.setattr(doctor, "FILE_CHECKS", {"data": broken, "lock": refused, "compute": doctor._data})
    found = examine([file], deep=False)
    assert levels(of(found, "data")) == ["ok", "fail"]
    assert "ZeroDivisionError: by zero" in of(found, "data")[1].what
    assert of(found, "lock") == [Finding("fail", "folder: not there; make it")]
    assert levels(of(found, "compute")) == ["ok", "ok"]


@pytest.mark.system
def test_a_real_scheduler_is_asked_for_its_workers(tmp_path: Path) -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, processes=False, host="tcp://127.0.0.1", dashboard_address=None, resources={"GPU": 1}
    ) as cluster:
        file = written(tmp_path, tail=f'[compute]\ncluster = "{cluster.scheduler_address}"')
        found = only(file, "compute")
    assert levels(found) == ["warn"]
    assert "workers claim 1 GPU" in found[0].what
