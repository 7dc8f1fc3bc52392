"""`cereals gc`: what campaigns and studies need no more is removed, and told round by round."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from deployments.status import open_started
from tasks.pages.wording import size
from tasks.running.opening import alone, open_campaign, refuse_held
from tasks.store.layout import Campaign, Study
from tasks.store.pruning import Links, Removed, prune, prune_shared


def collect(file: Path, keep_rounds: int, dry_run: bool) -> Iterator[str]:
    """Prune the campaign or study of a file, and tell what that frees; LockedError while it runs.

    A dry run writes nothing.
    """
    place, links = open_started(file), Links()
    with _nobody_else(place, dry_run):
        if isinstance(place, Campaign):
            campaign = open_campaign(place.settings)
            yield from _told(campaign.settings.name, prune(campaign, keep_rounds, dry_run))
            return
        for arm, settings in place.settings.campaigns():
            if Campaign(settings.path, settings).settings_file.exists():
                removed = prune(open_campaign(settings), keep_rounds, dry_run, links)
                yield from _told(f"{arm} seed {settings.seed}", removed)
        yield from _told("shared", prune_shared(place, dry_run, links))


@contextmanager
def _nobody_else(place: Campaign | Study, dry_run: bool) -> Iterator[None]:
    """See that nobody runs it, and be the only one to write unless nothing is to be written."""
    if dry_run:
        refuse_held(place)
        yield
        return
    with alone(place):
        yield


def _told(name: str, removed: Iterable[Removed]) -> Iterator[str]:
    """Write a line for each round, and nothing where nothing goes."""
    for number, some in groupby(removed, lambda each: each.round_number):
        folders = list(some)
        where = name if number is None else f"{name} round {number}"
        yield f"{where}: {size(sum(each.freed_bytes for each in folders))} in {len(folders)} folders"
