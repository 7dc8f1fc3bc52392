"""Attempts at a campaign from a test: in another process, which forks them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict

from chaos_process import Fuse, Outcome
from checkout import SEARCH

from cereals_core.settings import CampaignSettings

SERVE = "import sys; from chaos import serve; serve(*sys.argv[1:])"


class Driver:
    """A process that makes attempts, one at a time."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def start(self, fuse: Fuse) -> None:
        """Begin an attempt."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asdict(fuse)) + "\n")
        self.process.stdin.flush()

    def outcome(self) -> Outcome:
        """Wait for its end."""
        assert self.process.stdout is not None
        return Outcome(**json.loads(self.process.stdout.readline()))

    def __call__(self, fuse: Fuse | None = None) -> Outcome:
        """One attempt, undisturbed if there is no fuse."""
        self.start(fuse or Fuse())
        return self.outcome()


@contextmanager
def driving(settings: CampaignSettings, environment: Mapping[str, str]) -> Iterator[Driver]:
    """A driver of a campaign; it logs beside the campaign's folder."""
    log = settings.path.with_name(f"{settings.path.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-c", SERVE, settings.model_dump_json(), str(log)]
    search = {"PYTHONPATH": SEARCH}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env={**os.environ, **environment, **search}, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield Driver(process)
        assert process.stdin is not None
        process.stdin.close()
