import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_campaign import small_settings, toml_of

from cereals_core.errors import LockedError, ProductError
from cereals_core.settings import CampaignSettings
from deployments.garbage import collect
from deployments.status import show_status
from flows.campaign import run_campaign
from tasks.reporting import report_campaign
from tasks.running.opening import writing
from tasks.store.history import finished_rounds, maps_of
from tasks.store.layout import Campaign
from tasks.store.products import Product, Recipe, find_product, is_pruned, making, require
from tasks.store.pruning import Links, Removed, prune, prune_shared
from tasks.store.sharing import borrow, lend

MAP_STAGES = ["info-map", "cost-map"]


@pytest.fixture
def campaign(finished: CampaignSettings, tmp_path: Path) -> Campaign:
    """A copy of the finished campaign, to take apart."""
    folder = tmp_path / "copy"
    shutil.copytree(finished.path, folder)
    return Campaign(folder, finished.model_copy(update={"folder": str(folder)}))


def test_maps_of_all_rounds_but_the_last_go(campaign: Campaign) -> None:
    assert finished_rounds(campaign) == [0, 1]
    sizes = {name: (campaign.stage(name, 0) / "maps.zarr") for name in MAP_STAGES}
    bytes_before = {
        name: sum(file.stat().st_size for file in each.rglob("*") if file.is_file()) for name, each in sizes.items()
    }
    assert list(prune(campaign, keep_rounds=1, dry_run=True)) == [
        Removed(0, sizes[name], bytes_before[name]) for name in MAP_STAGES
    ]
    assert all(maps.exists() for maps in sizes.values())
    assert len(list(prune(campaign, keep_rounds=1, dry_run=False))) == 2
    assert not any(maps.exists() for maps in sizes.values())
    assert all(is_pruned(campaign.stage(name, 0)) for name in MAP_STAGES)
    assert not any(is_pruned(campaign.stage(name, 1)) for name in MAP_STAGES)
    assert list(prune(campaign, keep_rounds=1, dry_run=False)) == []


@pytest.mark.parametrize("keep_rounds", [2, 3])
def test_rounds_that_are_to_be_kept_are(campaign: Campaign, keep_rounds: int) -> None:
    assert list(prune(campaign, keep_rounds, dry_run=False)) == []


def test_a_pruned_campaign_is_as_finished_as_before(campaign: Campaign) -> None:
    before = report_campaign(campaign).read_text()
    list(prune(campaign, keep_rounds=0, dry_run=False))
    made = {file: file.stat().st_mtime_ns for file in campaign.folder.rglob("manifest.json")}
    assert run_campaign(campaign.settings) == "all 2 rounds of queries are done"
    assert {file: file.stat().st_mtime_ns for file in campaign.folder.rglob("manifest.json")} == made
    assert report_campaign(campaign).read_text() == before
    with pytest.raises(ProductError, match=r"info-map: its maps were removed by `cereals gc`"):
        maps_of(campaign, 0)


def test_what_died_goes_and_what_may_go_on_stays(campaign: Campaign) -> None:
    fingerprint = "0123456789abcdef"
    stays = campaign.round(2) / f".info-map.{fingerprint}"
    goes = [
        campaign.round(1) / f".info-map.{fingerprint}",
        campaign.round(1) / ".nms.stale",
        campaign.folder / ".pool.12-34.linked",
    ]
    for folder in (stays, *goes):
        folder.mkdir()
        (folder / "file").write_bytes(b"four")
    removed = list(prune(campaign, keep_rounds=9, dry_run=False))
    assert {each.folder: each.freed_bytes for each in removed} == dict.fromkeys(goes, 4)
    assert stays.exists()
    assert not any(folder.exists() for folder in goes)


def test_it_is_refused_while_the_campaign_runs(campaign: Campaign, tmp_path: Path) -> None:
    file = tmp_path / "small.toml"
    file.write_text(toml_of(campaign.settings))
    assert "ended with round 2" in show_status([file])
    with writing(campaign), pytest.raises(LockedError):
        list(collect(file, 1, dry_run=False))
    (line,) = collect(file, 1, dry_run=False)
    assert line.startswith("small round 0: ")
    assert line.endswith(" in 2 folders")


def test_shared_maps_go_when_no_campaign_links_them(tmp_path: Path) -> None:
    study = SimpleNamespace(shared=tmp_path / "shared")
    for name in ("linked", "alone"):
        file = study.shared / name / "maps.zarr" / "chunk"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"12345678")
    (tmp_path / "link").hardlink_to(study.shared / "linked" / "maps.zarr" / "chunk")
    (removed,) = prune_shared(study, dry_run=False)  # type: ignore[arg-type]
    assert removed == Removed(None, study.shared / "alone", 8)
    assert [path.name for path in study.shared.iterdir()] == ["linked"]


def product_at(folder: Path, recipe: Recipe, files: dict[str, bytes]) -> Product:
    with making(folder, recipe) as (work, _):
        for name, content in files.items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(content)
    return require(find_product(folder), folder)


def test_bytes_that_campaigns_share_are_freed_once_and_a_dry_run_knows(tmp_path: Path) -> None:
    """Two campaigns and their study hold the same maps of rounds 0 and 1; those of round 0 go, 1,000 bytes."""
    shared = tmp_path / "shared"
    first, second = (Campaign(tmp_path / name, small_settings(tmp_path / name), shared) for name in "ab")
    for number in (0, 1):
        for name in ("info-map", "oracle-query", "report"):
            recipe = Recipe(name, 1, {"round": number}, {})
            files = {"maps.zarr/c/0": b"x" * 1000} if name == "info-map" else {"table": b"y"}
            lend(product_at(first.stage(name, number), recipe, files), shared)
            borrow(second.stage(name, number), recipe, shared)

    def removed(dry_run: bool) -> list[Removed]:
        links = Links()
        own = [each for campaign in (first, second) for each in prune(campaign, 1, dry_run, links)]
        return [*own, *prune_shared(SimpleNamespace(shared=shared), dry_run, links)]  # type: ignore[arg-type]

    planned = removed(dry_run=True)
    assert [each.freed_bytes for each in planned] == [0, 0, 1000]
    assert removed(dry_run=False) == planned
    assert removed(dry_run=False) == []


def test_a_dry_run_changes_nothing_and_tells_what_a_real_one_removes(campaign: Campaign, tmp_path: Path) -> None:
    left = campaign.round(1) / ".train-seg.stale"
    left.mkdir()
    (left / "weights.pt").write_bytes(bytes(1000))
    file = tmp_path / "small.toml"
    file.write_text(toml_of(campaign.settings).replace("rounds = 2", "rounds = 7"))

    def everything() -> dict[Path, object]:
        files = campaign.folder.rglob("*")
        return {each: each.stat().st_mtime_ns if each.is_dir() else each.read_bytes() for each in files}

    before = everything()
    told = list(collect(file, 1, dry_run=True))
    assert everything() == before
    assert list(collect(file, 1, dry_run=False)) == told
    assert [line for line in told if "1.0 kB" in line]
    assert not left.exists()
