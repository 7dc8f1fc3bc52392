"""What a campaign needs no more: maps of past rounds, and what stages left behind that died."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cereals_core.location import is_on_disk
from tasks.history import finished_rounds, kept_or_pruned
from tasks.layout import MAPS, Campaign, Study
from tasks.products import PRUNED, recorded
from tasks.storage import remove, sizes_below, write_atomically

MAP_STAGES = ("info-map", "cost-map", "region-fusion")
_WORK = re.compile(r"\.([a-z-]+)\.[0-9a-f]{16}")
_LEFT = re.compile(r"\.[a-z-]+\.(stale|.*linked)")


@dataclass(frozen=True)
class Removed:
    """A folder that goes: of which round (None: of no round), and the bytes that this frees."""

    round_number: int | None
    folder: Path
    freed_bytes: int


def prune(campaign: Campaign, keep_rounds: int, dry_run: bool) -> Iterator[Removed]:
    """Remove the maps of finished rounds but the last `keep_rounds`, and abandoned folders; tells each.

    The products stay as manifests, marked as pruned, so that their rounds stay finished and reports stay complete. To
    be called under the campaign's lock.
    """
    finished = finished_rounds(campaign)
    for number in finished[: max(len(finished) - keep_rounds, 0)]:
        for name in MAP_STAGES:
            folder = campaign.stage(name, number)
            if recorded(folder) is not None and sizes_below(folder / MAPS):
                yield _remove(number, folder / MAPS, dry_run)
    yield from _abandoned(None, campaign.folder, dry_run)
    for number in campaign.rounds():
        yield from _abandoned(number, campaign.round(number), dry_run)


def prune_shared(study: Study, dry_run: bool) -> Iterator[Removed]:
    """Remove what a study's campaigns have shared and none of them holds any more, which links tell (on disks)."""
    if not is_on_disk(study.shared) or not study.shared.exists():
        return
    for folder in sorted(study.shared.iterdir()):
        maps = [path for path in (folder / MAPS).rglob("*") if path.is_file()]
        if maps and all(path.stat().st_nlink == 1 for path in maps):
            yield _remove(None, folder, dry_run)


def _abandoned(number: int | None, parent: Path, dry_run: bool) -> Iterator[Removed]:
    """Working folders of stages whose product is there, and what a death between two renames left."""
    for folder in sorted(parent.glob(".*")):
        work = _WORK.fullmatch(folder.name)
        needless = work is not None and kept_or_pruned(parent / work[1], hashed=False) is not None
        if needless or _LEFT.fullmatch(folder.name):
            yield _remove(number, folder, dry_run)


def _remove(number: int | None, folder: Path, dry_run: bool) -> Removed:
    """Remove a folder; one with maps is marked in its product first, so that a death in between is no damage."""
    freed = _freed_bytes(folder)
    if not dry_run:
        if folder.name == MAPS:
            write_atomically(folder.parent / PRUNED, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode())
        remove(folder)
    return Removed(number, folder, freed)


def _freed_bytes(folder: Path) -> int:
    """What removing it gives back: files that other folders link too are not counted."""
    if not is_on_disk(folder):
        return sum(sizes_below(folder).values())
    files = (path.stat() for path in folder.rglob("*") if path.is_file())
    return sum(file.st_size for file in files if file.st_nlink == 1)
