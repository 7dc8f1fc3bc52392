"""Before the first round: open a campaign, take its lock, check its data, list its pool."""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cereals_core.datasets import open_truth
from cereals_core.datasets.check import ImageInfo, check
from cereals_core.errors import DataError, SettingsError
from cereals_core.grid import candidate_shape
from cereals_core.models.build import network_outline
from cereals_core.settings import CampaignSettings, changes_between
from cereals_core.settings_files import parse_settings
from tasks import tables
from tasks.device import cpu_threads
from tasks.layout import POOL, Campaign, Study
from tasks.lock import locked
from tasks.maps import Pool, group_name
from tasks.products import Product, clear_dead
from tasks.progress import track
from tasks.stage import Work, stage
from tasks.storage import UNFINISHED, make_folder, refuse_unreachable, telling_of_storage, write_atomically

_REMOVE = "remove it: what was made from the settings that are given now is kept"
SPLITS: tuple[Literal["pool"], Literal["eval"]] = ("pool", "eval")


def open_campaign(settings: CampaignSettings, shared: Path | None = None) -> Campaign:
    """A reference to the campaign in its folder; other settings than it was started with are refused."""
    network_outline(settings.model)  # says at once if torchvision is needed and missing
    campaign = Campaign(settings.path, settings, shared)
    refuse_unreachable(campaign.folder)
    if campaign.settings_file.exists():
        changes = changes_between(_started_with(campaign.settings_file), settings)
        if changes:
            raise SettingsError(
                f"{campaign.folder}: this campaign was started with other settings; restore them, or give the new "
                f"campaign another name or folder. If nobody changed them, {campaign.settings_file} is damaged: "
                f"{_REMOVE}\n" + "\n".join(f"  {change}" for change in changes)
            )
    return campaign


def _started_with(file: Path) -> CampaignSettings:
    try:
        raw = json.loads(file.read_text())
    except ValueError as error:
        raise SettingsError(f"{file}: not valid JSON ({error}); restore it, or {_REMOVE}") from None
    try:
        return parse_settings(raw, str(file))
    except SettingsError as error:
        raise SettingsError(f"{error}\nThe file is damaged, or of another version: restore it, or {_REMOVE}") from None


@contextmanager
def writing(place: Campaign | Study) -> Iterator[None]:
    """Be its only writer, and record its settings; LockedError while another process is."""
    with telling_of_storage(place.folder), _locked(place):
        for leftover in place.folder.glob(UNFINISHED):
            leftover.unlink()
        for parent in place.parents:
            clear_dead(parent)
        write_atomically(place.settings_file, place.settings.model_dump_json(indent=1).encode())
        yield


@contextmanager
def _locked(place: Campaign | Study) -> Iterator[None]:
    make_folder(place.folder)
    with locked(place.lock_file):
        yield


def examine(settings: CampaignSettings) -> dict[str, list[ImageInfo]]:
    """Read every image of both splits and its truth once; DataError lists all that is broken."""
    infos: dict[str, list[ImageInfo]] = {}
    problems: list[str] = []
    for split in SPLITS:
        dataset = open_truth(settings.data, split)
        with track(f"check {split}", len(dataset.image_ids), "images") as advance:
            infos[split], found = check(dataset, advance, cpu_threads(settings.compute))
        problems += found
    if problems:
        raise DataError(f"{len(problems)} problems in the data; correct them and run again\n" + "\n".join(problems))
    return infos


@stage("pool", version=1, depends_on=("data",))
def check_pool(work: Work) -> None:
    """Check the data, and list the pool."""
    settings = work.campaign.settings
    infos = examine(settings)
    rows: Counter[str] = Counter()
    table = []
    for info in infos["pool"]:
        group = group_name(info.height, info.width)
        table.append({**vars(info), "group": group, "row": rows[group]})
        rows[group] += 1
    tables.write_table(work.folder / POOL, tables.POOL, table)
    work.facts.update(
        images=len(table),
        pixels=sum(info.height * info.width for info in infos["pool"]),
        eval_images=len(infos["eval"]),
        class_names=list(open_truth(settings.data, "pool").class_names),
    )


def open_pool(campaign: Campaign, pool: Product) -> Pool:
    """The pool that a pool product lists."""
    return Pool(tables.read_table(pool / POOL, tables.POOL), campaign.settings.compute.shard_images)


def refuse_impossible(settings: CampaignSettings, pool: Pool) -> None:
    """Raise SettingsError when the pool cannot serve what the settings ask for."""
    wanted = settings.acquisition
    if wanted.seed_images != "all" and wanted.seed_images > len(pool.images):
        raise SettingsError(
            f"acquisition.seed_images = {wanted.seed_images}: the pool has {len(pool.images)} images; "
            "lower it to so many at most, or enlarge the pool"
        )
    window_px = wanted.window_px
    fits = any(all(candidate_shape(shard.height, shard.width, window_px)) for shard in pool.shards())
    if wanted.unit == "region" and not fits:
        sizes = ", ".join(list(pool.groups)[:5])
        raise SettingsError(
            f"acquisition.window_px = {window_px}: fits into no image of the pool (height x width {sizes}); lower it"
        )
    pool.budget(wanted)
