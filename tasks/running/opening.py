"""Opening a campaign or study: its folder is looked at, its lock taken, its settings recorded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cereals_core.errors import SettingsError
from cereals_core.networks import family_of
from cereals_core.settings import CampaignSettings, changes_between
from cereals_core.settings_files import parse_settings
from tasks.running.holder import locked_error
from tasks.running.lock import holder_of, locked
from tasks.store.layout import Campaign, Study
from tasks.store.products import clear_dead
from tasks.store.storage import UNFINISHED, make_folder, refuse_unreachable, telling_of_storage, write_atomically

_REMOVE = "remove it: what was made from the settings that are given now is kept"


def open_campaign(settings: CampaignSettings, shared: Path | None = None) -> Campaign:
    """Open the campaign in its folder; other settings than it was started with are refused."""
    if family_of(settings.model.name).needs:
        from cereals_core.models.build import network_outline

        network_outline(settings.model)  # says at once if that is missing, or knows no such network
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
    except (OSError, ValueError, RecursionError) as error:
        problem = error.strerror if isinstance(error, OSError) else f"not valid JSON ({error})"
        raise SettingsError(f"{file}: {problem}; restore it, or {_REMOVE}") from None
    try:
        return parse_settings(raw, str(file))
    except SettingsError as error:
        raise SettingsError(f"{error}\nThe file is damaged, or of another version: restore it, or {_REMOVE}") from None


@contextmanager
def writing(place: Campaign | Study) -> Iterator[None]:
    """Be its only writer, clear what the dead have left, and record its settings; LockedError as in `alone`."""
    with alone(place):
        for leftover in place.folder.glob(UNFINISHED):
            leftover.unlink()
        for parent in place.parents:
            clear_dead(parent)
        write_atomically(place.settings_file, place.settings.model_dump_json(indent=1).encode())
        yield


@contextmanager
def alone(place: Campaign | Study) -> Iterator[None]:
    """Be its only writer; LockedError while another process is."""
    with telling_of_storage(place.folder):
        make_folder(place.folder)
        with locked(place.lock_file):
            yield


def refuse_held(place: Campaign | Study) -> None:
    """Raise LockedError while another process runs it."""
    if holder := holder_of(place.lock_file):
        raise locked_error(place.lock_file, holder)
