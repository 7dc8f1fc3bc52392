"""A Prefect server of this process alone: it comes up while libraries are imported, and the two end together.

The server is a process in a session of its own, so that what a terminal sends to its foreground does not reach it. It
reads from a pipe of which this process holds the other end, and ends when that closes: with this process, however that
went.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from cereals_core.errors import ServerError
from deployments.environment import KEPT_DAYS, retention

START_S = 120.0
"""A server that does not answer for so long after its start never will."""
END_S = 5.0
"""So long it may take to end in good order."""
SETTINGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
"""As Prefect has them for a server of its own making: no pages, and few services."""


class EmbeddedServer:
    """The server as its process sees it; `url` is that of its interface, which takes requests from the start."""

    def __init__(self) -> None:
        environment = {**os.environ, **SETTINGS, **retention(KEPT_DAYS)}
        environment.pop("PREFECT_API_URL", None)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (for as long as the server runs)
        with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(listening.fileno())],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=self._log,
                stderr=self._log,
                pass_fds=(listening.fileno(),),
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Wait until it answers; ServerError with the end of its log if it does not."""
        import httpx

        try:
            httpx.get(f"{self.url}/health", timeout=START_S, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise self.ended(f"did not start ({error})") from error

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended."""
        return self._process.poll() is not None

    def ended(self, how: str) -> ServerError:
        """Say that it is not there, with the end of its log."""
        self._log.seek(0)
        last = self._log.read()[-2000:].decode(errors="replace").strip()
        return ServerError(
            f"the Prefect server of this process {how}; run the same command again, finished work is kept"
            + (f"\n{last}" if last else "")
        )

    def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def serve(descriptor: int) -> None:
    """Serve on a socket that listens, until the process that made it is gone."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn

    application = "prefect.server.api.server:create_app"
    server = uvicorn.Server(uvicorn.Config(application, factory=True, log_level="error", lifespan="on"))
    server.run(sockets=[socket.socket(fileno=descriptor)])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_S)
    os._exit(1)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
