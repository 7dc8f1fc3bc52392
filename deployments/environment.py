"""Prefect's settings for runs from the command line; set before Prefect is imported, and never over the user's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cereals_core.errors import ServerError

if TYPE_CHECKING:
    import httpx

KEPT_DAYS = 90
"""For so long a server keeps runs that have ended, unless it is told otherwise."""
LOCAL = ("127.0.0.1", "localhost")


def prepare_environment() -> None:
    """Use the user's server or profile if there is one, else an embedded server with its own home; quiet console."""
    defaults = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLIENT_MAX_RETRIES": "6",  # requests wait for a server that is away, up to two minutes
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    if not (Path.home() / ".prefect" / "profiles.toml").exists():
        defaults["PREFECT_HOME"] = str(Path.home() / ".cereals" / "prefect")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):  # what goes to this host goes through no proxy
        others = [each for each in os.environ.get(name, "").split(",") if each.strip() and each.strip() not in LOCAL]
        os.environ[name] = ",".join([*others, *LOCAL])
    if "PREFECT_HOME" in os.environ:
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


def names_server() -> bool:
    """Tell whether the environment, a profile or a settings file names a Prefect server."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    homes = (Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")), Path.home() / ".prefect")
    told = [*(home / "profiles.toml" for home in homes), Path("prefect.toml")]
    beside = [file for file in (Path(".env"), Path("pyproject.toml")) if file.is_file()]
    says = any(
        b"PREFECT_" in content or b"[tool.prefect" in content for content in (each.read_bytes() for each in beside)
    )
    if not says and not any(file.exists() for file in told) and "PREFECT_PROFILES_PATH" not in os.environ:
        return False
    from prefect.settings import PREFECT_API_URL

    return bool(PREFECT_API_URL.value())


def retention(days: int) -> dict[str, str]:
    """Return the settings of a server that keeps runs that have ended for so many days."""
    return {
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(days * 24 * 60 * 60),
    }


@contextmanager
def server_named() -> Iterator[None]:
    """Turn what comes of a Prefect server that does not answer, or refuses, into a ServerError that names it."""
    import httpx
    from prefect.settings import PREFECT_API_URL

    try:
        yield
    except Exception as error:
        server = f"Prefect server {PREFECT_API_URL.value() or 'embedded in this process'}"
        for each in (error, error.__cause__):
            if isinstance(each, httpx.HTTPStatusError) and each.response.status_code < 500:
                raise ServerError(f"{server}: {_refusal(each)}") from error
            if isinstance(each, httpx.TransportError | httpx.HTTPStatusError):
                raise ServerError(
                    f"{server}: no answer ({each}); start it again, or unset PREFECT_API_URL, "
                    "then run the same command again, finished work is kept"
                ) from error
        if isinstance(error, RuntimeError) and "incompatible versions" in str(error):
            raise ServerError(f"{server}: {error} Name another by PREFECT_API_URL") from error
        raise


def _refusal(error: "httpx.HTTPStatusError") -> str:
    """Say what a server has refused, and whether that is because it is of another version than this client."""
    import httpx
    from packaging.version import InvalidVersion, Version
    from prefect import __version__

    asked, status = error.request, error.response.status_code
    said = f"it answers {status} to {asked.method} {asked.url.path}"
    base = str(asked.url).partition("/api/")[0]
    try:
        answer = httpx.get(f"{base}/api/admin/version", timeout=5)
        there = Version(answer.json())
    except (httpx.HTTPError, ValueError, TypeError, InvalidVersion):
        return f"{said}; look into its log"
    if there.release == Version(__version__).release:
        return f"{said} ({error.response.text[:300]}); it has the client's version, {there}: look into its log"
    age = "older" if there < Version(__version__) else "newer"
    return (
        f"{said}; it is of version {there}, {age} than this client ({__version__}): "
        f"{'upgrade it' if age == 'older' else 'upgrade prefect here'}, or name another by PREFECT_API_URL"
    )
