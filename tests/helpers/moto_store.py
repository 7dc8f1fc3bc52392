"""An S3 server for tests (moto), in this process or in one of its own, that this process's S3 clients then use."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import s3fs

BUCKET = "bucket"
LOOPBACK = "127.0.0.1"


@contextmanager
def store_here() -> Iterator[str]:
    """A store with one bucket in a thread of this process; yields its address."""
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=LOOPBACK, port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with _used(f"http://{host}:{port}") as address:
            yield address
    finally:
        server.stop()


@contextmanager
def store_apart(folder: Path, host: str = LOOPBACK, port: int = 0) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A store with one bucket in a process of its own; yields its address and the process."""
    port = port or free_port(host)
    command = [sys.executable, "-m", "moto.server", "-H", host, "-p", str(port)]
    with (folder / "moto.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for_port(host, port)
            with _used(f"http://{host}:{port}") as address:
                yield address, process
        finally:
            process.kill()


@contextmanager
def _used(address: str) -> Iterator[str]:
    """Have this process and those it starts use the store, with an empty bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in credentials(address).items():
            patch.setenv(name, value)
        urlopen(Request(f"{address}/moto-api/reset", method="POST")).close()  # stores of one process are one
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(BUCKET)
        yield address
    s3fs.S3FileSystem.clear_instance_cache()


def credentials(address: str) -> dict[str, str]:
    """What clients of the store have in their environment."""
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "testing")
    return {**keys, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": address}


def free_port(host: str = LOOPBACK) -> int:
    """A port that nobody listens on."""
    with socket.create_server((host, 0)) as server:
        return int(server.getsockname()[1])


def wait_for_port(host: str, port: int, seconds: float = 60) -> None:
    """Return once somebody listens there."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"nobody listens on {host}:{port} after {seconds:.0f} s")


def environment(**more: str) -> dict[str, str]:
    """This process's environment with more in it."""
    return {**os.environ, **more}
