"""What a campaign needs no more: maps of past rounds, and what stages left behind that died."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cereals_core.location import is_on_disk
from tasks.store.history import finished_rounds, kept_or_pruned, products_made
from tasks.store.layout import MAPS, Campaign, Study
from tasks.store.products import PRUNED, WORK_FOLDER
from tasks.store.storage import remove, sizes_below, write_atomically

_LEFT = re.compile(r"\.[a-z-]+\.(stale|.*linked)")


@dataclass(frozen=True)
class Removed:
    """A folder that goes: of which round (None: of no round), and the bytes that this frees."""

    round_number: int | None
    folder: Path
    freed_bytes: int


class Links:
    """Names of files as folders go, one after the other: the last name frees the bytes, in a dry run as well."""

    def __init__(self) -> None:
        self._left: dict[tuple[int, int], int] = {}

    def left(self, file: Path) -> int:
        """Tell how many names its content has left."""
        stat = file.stat()
        return self._left.get((stat.st_dev, stat.st_ino), stat.st_nlink)

    def release(self, folder: Path) -> int:
        """Count the names below a folder as gone; what that frees in bytes. An object store knows no links."""
        if not is_on_disk(folder):
            return sum(sizes_below(folder).values())
        return sum(self._release(file) for file in folder.rglob("*") if file.is_file())

    def _release(self, file: Path) -> int:
        stat, left = file.stat(), self.left(file) - 1
        self._left[stat.st_dev, stat.st_ino] = left
        return 0 if left else stat.st_size


def prune(campaign: Campaign, keep_rounds: int, dry_run: bool, links: Links | None = None) -> Iterator[Removed]:
    """Remove the maps of finished rounds but the last `keep_rounds`, and abandoned folders; tells each.

    The products stay as manifests, marked as pruned, so that their rounds stay finished and reports stay complete. To
    be called under the campaign's lock. `links` are those of all campaigns that are pruned together.
    """
    links = links or Links()
    finished = finished_rounds(campaign)
    past = finished[: max(len(finished) - keep_rounds, 0)]
    for number, product in list(products_made(campaign)):
        if number in past and sizes_below(product / MAPS):
            yield _remove(number, product / MAPS, dry_run, links)
    yield from _abandoned(None, campaign.folder, dry_run, links)
    for number in campaign.rounds():
        yield from _abandoned(number, campaign.round(number), dry_run, links)


def prune_shared(study: Study, dry_run: bool, links: Links | None = None) -> Iterator[Removed]:
    """Remove what a study's campaigns have shared and none of them holds any more, which links tell (on disks)."""
    if not is_on_disk(study.shared) or not study.shared.exists():
        return
    links = links or Links()
    for folder in sorted(study.shared.iterdir()):
        maps = [path for path in (folder / MAPS).rglob("*") if path.is_file()]
        if maps and all(links.left(path) == 1 for path in maps):
            yield _remove(None, folder, dry_run, links)


def _abandoned(number: int | None, parent: Path, dry_run: bool, links: Links) -> Iterator[Removed]:
    """List working folders of stages whose product is there, and what a death between two renames left."""
    for folder in sorted(parent.glob(".*")):
        work = WORK_FOLDER.fullmatch(folder.name)
        needless = work is not None and kept_or_pruned(parent / work[1], hashed=False) is not None
        if needless or _LEFT.fullmatch(folder.name):
            yield _remove(number, folder, dry_run, links)


def _remove(number: int | None, folder: Path, dry_run: bool, links: Links) -> Removed:
    """Remove a folder; one with maps is marked in its product first, so that a death in between is no damage."""
    freed = links.release(folder)
    if not dry_run:
        if folder.name == MAPS:
            write_atomically(folder.parent / PRUNED, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()).encode())
        remove(folder)
    return Removed(number, folder, freed)
