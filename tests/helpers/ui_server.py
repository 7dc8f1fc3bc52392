"""A Prefect server of its own for the tests that look at its interface, and the command line against it."""

import os
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from pathlib import Path

from checkout import ROOT


class Prefect:
    """A home with a server on it, and the command line against either that or the embedded server."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        taken = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        self.environment = taken | {
            "OMP_NUM_THREADS": "1",
            "PREFECT_HOME": str(folder),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_UI_V2_ENABLED": "false",
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
            "PYTHONPATH": str(ROOT),
        }

    def cereals(self, command: str, text: str, embedded: bool = False, before: str = "") -> str:
        """Run a command on a file of this text; returns the name that the file gives."""
        name: str = tomllib.loads(text)["name"]
        file = self.folder / f"{name}.toml"
        file.write_text(text)
        api = {} if embedded else {"PREFECT_API_URL": f"{self.url}/api"}
        code = f"{before}from deployments.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, command, str(file)],
            env=self.environment | api,
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=1_500,
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        return name

    def serve(self) -> subprocess.Popen[bytes]:
        """Start the server, and wait until it answers."""
        log = (self.folder / "server.log").open("wb")
        command = [sys.executable, "-m", "prefect", "server", "start"]
        server = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        for _ in range(240):
            if server.poll() is None and answers(f"{self.url}/api/health"):
                return server
            time.sleep(0.5)
        server.terminate()
        raise AssertionError((self.folder / "server.log").read_text()[-3_000:])


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answers(url: str) -> bool:
    """Whether there is a page."""
    try:
        with urllib.request.urlopen(url, timeout=5) as page:
            return bool(page.status == 200)
    except OSError:
        return False
