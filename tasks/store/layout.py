"""The one file that knows where things are in a campaign's folder."""

from dataclasses import dataclass
from pathlib import Path

from cereals_core.settings import CampaignSettings
from cereals_core.study_settings import StudySettings
from tasks.store.storage import names_in

SETTINGS = "settings.json"
LOCK = "lock"
MAPS = "maps.zarr"
WEIGHTS = "weights.pt"
ROUND_PAGE = "round.md"
REPORT_PAGE = "report.html"


@dataclass(frozen=True)
class Place:
    """A folder that one process writes at a time."""

    folder: Path

    @property
    def settings_file(self) -> Path:
        """The settings of the last run."""
        return self.folder / SETTINGS

    @property
    def lock_file(self) -> Path:
        """Held by the process that writes."""
        return self.folder / LOCK

    @property
    def report_file(self) -> Path:
        """What a person reads."""
        return self.folder / REPORT_PAGE


@dataclass(frozen=True)
class Campaign(Place):
    """A reference to a campaign: its folder and its settings. This is what travels between tasks.

    `shared` is the folder of products that the campaigns of a study have in common.
    """

    settings: CampaignSettings
    shared: Path | None = None

    def stage(self, name: str, round_number: int | None) -> Path:
        """Name the folder of a stage's product; stages before the first round have no round number."""
        if round_number is None:
            return self.folder / name
        return self.round(round_number) / name

    def round(self, number: int) -> Path:
        """Name the folder of a round."""
        return self.folder / "rounds" / f"{number:03d}"

    def rounds(self) -> list[int]:
        """List the numbers of the rounds that have a folder, ascending."""
        return sorted(int(name) for name in names_in(self.folder / "rounds") if name.isascii() and name.isdigit())

    @property
    def parents(self) -> list[Path]:
        """Folders that its products lie in."""
        return [self.folder, *map(self.round, self.rounds())]

    @property
    def ledger_file(self) -> Path:
        """Copy of the last complete round's ledger."""
        return self.folder / "ledger.parquet"


@dataclass(frozen=True)
class Study(Place):
    """A reference to a study: its folder and its settings; strategies and seeds may be added between runs."""

    settings: StudySettings

    @property
    def shared(self) -> Path:
        """Products that several campaigns have in common, by fingerprint."""
        return self.folder / "shared"

    @property
    def parents(self) -> list[Path]:
        """Folders that its products lie in."""
        return [self.shared]


def place_of(settings: CampaignSettings | StudySettings) -> Campaign | Study:
    """Return the reference to the campaign or study with these settings, in its own folder."""
    if isinstance(settings, StudySettings):
        return Study(settings.path, settings)
    return Campaign(settings.path, settings)
