"""Campaign files in TOML: read and checked, all mistakes reported at once."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cereals_core.errors import SettingsError
from cereals_core.settings import CampaignSettings, CityscapesData, CocoData, MasksData, SyntheticData


def read_settings(file: Path) -> CampaignSettings:
    """Read and check a campaign file; SettingsError lists every mistake with its key, value and what is allowed."""
    try:
        raw = tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise SettingsError(
            f"{file}: no such campaign file; recipes to start from are in deployments/recipes/"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}; correct the file and run again") from None
    return parse_settings(raw, str(file))


def parse_settings(raw: dict[str, Any], origin: str) -> CampaignSettings:
    """Check settings already read from `origin`, a name for error messages."""
    try:
        return CampaignSettings.model_validate(raw)
    except ValidationError as error:
        lines = [_mistake(entry) for entry in error.errors()]
        count = "1 mistake" if len(lines) == 1 else f"{len(lines)} mistakes"
        raise SettingsError(f"{origin}: {count}; correct and run again\n" + "\n".join(lines)) from None


def _mistake(entry: Any) -> str:
    location = [str(part) for part in entry["loc"]]
    if len(location) > 2 and location[0] == "data":
        del location[1]  # the format's name, which pydantic adds for the union
    key, problem, value = ".".join(location), entry["msg"], entry["input"]
    if entry["type"] == "extra_forbidden":
        return f"  {key}: no such key; allowed here: {', '.join(_keys_beside(entry['loc']))}"
    if entry["type"] == "missing":
        return f"  {key}: missing; it has no default"
    shown = "" if isinstance(value, dict) else f" = {value!r}"
    return f"  {key}{shown}: {problem.removeprefix('Value error, ')}"


def _keys_beside(location: tuple[str | int, ...]) -> list[str]:
    section: Any = CampaignSettings
    if len(location) > 1:
        if location[0] == "data":
            formats = {"coco": CocoData, "masks": MasksData, "cityscapes": CityscapesData, "synthetic": SyntheticData}
            section = formats[str(location[1])]
        else:
            section = type(CampaignSettings.model_fields[str(location[0])].default)
    return sorted(section.model_fields)
