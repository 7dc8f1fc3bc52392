"""Where campaigns are kept: a folder on a disk or a prefix in an object store, both behind pathlib's interface."""

from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import BeforeValidator

from cereals_core.errors import SettingsError

Location = Annotated[str, BeforeValidator(lambda value: value if value is None else str(value))]
"""A path, or an address such as `s3://bucket/prefix`."""


def open_location(location: str) -> Path:
    """Return the folder at a path (made absolute) or at an address, for which fsspec needs its store's package.

    What comes back for an address is a `universal_pathlib.UPath`, which has all of `Path` that is used here. Listings
    are not cached, since other processes write there too. SettingsError when the store's package is missing.
    """
    if "://" not in location:
        return Path(location).absolute()
    try:
        from upath import UPath

        folder = UPath(location, use_listings_cache=False)
        folder.fs  # noqa: B018  (opens the store)
    except (ImportError, ValueError) as error:
        raise SettingsError(
            f'folder = "{location}": cannot be opened ({error}); install what it needs, for s3 pip install -e ".[s3]"'
        ) from None
    return cast(Path, folder)


def is_on_disk(folder: Path) -> bool:
    """Tell whether it is a folder of a file system, not of an object store."""
    return isinstance(folder, Path)


def options_of(folder: Path) -> dict[str, Any]:
    """Return what fsspec needs to reach the same store."""
    return dict(cast(Any, folder).storage_options)
