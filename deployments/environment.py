"""Prefect's settings for runs from the command line; set before Prefect is imported, and never over the user's own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cereals_core.errors import ServerError


def prepare_environment() -> None:
    """Use the user's server or profile if there is one, else an embedded server with its own home; quiet console."""
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_CLIENT_MAX_RETRIES": "6",  # requests wait for a server that is away, up to two minutes
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    }
    if not (Path.home() / ".prefect" / "profiles.toml").exists():
        defaults["PREFECT_HOME"] = str(Path.home() / ".cereals" / "prefect")
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    if "PREFECT_HOME" in os.environ:
        Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)


@contextmanager
def server_named() -> Iterator[None]:
    """Turn what comes of a Prefect server that does not answer into a ServerError that names it."""
    import httpx
    from prefect.settings import PREFECT_API_URL

    try:
        yield
    except Exception as error:
        causes = (error, error.__cause__)
        if not any(isinstance(each, httpx.TransportError | httpx.HTTPStatusError) for each in causes):
            raise
        server = PREFECT_API_URL.value() or "embedded in this process"
        raise ServerError(
            f"Prefect server {server}: no answer ({error}); start it again, or unset PREFECT_API_URL, "
            "then run the same command again, finished work is kept"
        ) from error
