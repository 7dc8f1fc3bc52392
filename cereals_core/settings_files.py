"""Campaign and study files in TOML: read and checked, all mistakes reported at once."""

import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import ValidationError

from cereals_core.data_settings import Data, Section
from cereals_core.errors import SettingsError
from cereals_core.settings import CampaignSettings
from cereals_core.study_settings import StudySettings

Settings = TypeVar("Settings", bound=Section)
MOVED = {"compute.precision": "model.precision", "compute.batch_images": "acquisition.batch_images"}
"""Keys of earlier versions, and where they are now."""
MOST_BYTES = 1 << 20
"""A larger file is no campaign file."""
MOST_SHOWN = 200
"""Characters of a value that a message shows."""
MOST_LINES = 50
"""Mistakes that a message lists."""


def read_settings(file: Path) -> CampaignSettings:
    """Read and check a campaign file; SettingsError lists every mistake with its key, value and what is allowed."""
    raw = _read(file)
    if "study" in raw:
        raise SettingsError(f"{file}: this is a study file, not a campaign's; `cereals study {file}` runs it")
    return parse_settings(raw, str(file))


def read_study(file: Path) -> StudySettings:
    """Read and check a study file, and every campaign it means; SettingsError as for `read_settings`."""
    return _parse(StudySettings, _read(file), str(file))


def read_either(file: Path) -> CampaignSettings | StudySettings:
    """Read and check a study file, which has a `[study]` section, or else a campaign file; errors as for those."""
    raw = _read(file)
    return _parse(StudySettings, raw, str(file)) if "study" in raw else parse_settings(raw, str(file))


def parse_settings(raw: dict[str, Any], origin: str) -> CampaignSettings:
    """Check settings already read from `origin`, a name for error messages."""
    return _parse(CampaignSettings, raw, origin)


def _read(file: Path) -> dict[str, Any]:
    content = _content(file)
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        problem = "nested too deep" if isinstance(error, RecursionError) else error
        raise SettingsError(f"{file}: not valid TOML: {problem}; correct the file and run again") from None


def _content(file: Path) -> bytes:
    try:
        if file.is_file() and (size := file.stat().st_size) > MOST_BYTES:
            raise SettingsError(f"{file}: {size:,} bytes, where a campaign file has {MOST_BYTES:,} at most; name that")
        if file.exists() and not file.is_file():
            raise SettingsError(f"{file}: {'a folder' if file.is_dir() else 'no file'}; name a campaign file (TOML)")
        return file.read_bytes()
    except FileNotFoundError:
        raise SettingsError(
            f"{file}: no such campaign file; recipes to start from are in deployments/recipes/"
        ) from None
    except OSError as error:
        raise SettingsError(f"{shown(str(file))}: {error.strerror}; correct the path or its permissions") from None


def shown(text: str) -> str:
    """Cut a text where it is long, as messages show it."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}... ({len(text):,} characters)"


def _parse(kind: type[Settings], raw: dict[str, Any], origin: str) -> Settings:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        lines = [_mistake(kind, entry) for entry in error.errors()]
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        lines[MOST_LINES:] = [f"  and {len(lines) - MOST_LINES} more"] if len(lines) > MOST_LINES else []
        raise SettingsError(f"{origin}: {count}; correct and run again\n" + "\n".join(lines)) from None


def _mistake(kind: type[Section], entry: Any) -> str:
    location = [str(part) for part in entry["loc"]]
    if len(location) > 2 and location[0] == "data":
        del location[1]  # the format's name, which pydantic adds for the union
    if location and location[-1] in ("count", "word"):
        del location[-1]  # as it does for CountOrAll
    key, problem, value = shown(".".join(location)), entry["msg"], entry["input"]
    if key in MOVED:
        return f"  {key}: is {MOVED[key]} now; write it there"
    if entry["type"] == "extra_forbidden":
        return f"  {key}: no such key; allowed here: {', '.join(_keys_beside(kind, entry['loc']))}"
    if entry["type"] == "missing":
        return f"  {key}: missing; it has no default"
    given = "" if isinstance(value, dict) else f" = {shown(repr(value))}"
    return f"  {key}{given}: {problem.removeprefix('Value error, ')}"


def _keys_beside(kind: type[Section], location: tuple[str | int, ...]) -> list[str]:
    section: Any = kind
    if len(location) > 1:
        if location[0] == "data":
            formats = {
                get_args(each.model_fields["format"].annotation)[0]: each for each in get_args(get_args(Data)[0])
            }
            section = formats[str(location[1])]
        else:
            section = kind.model_fields[str(location[0])].annotation
    return sorted(section.model_fields)
