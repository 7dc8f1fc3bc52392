"""Servers as Prefect meets them: behind a proxy, of another version, or not at all."""

import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import __version__ as installed
from prefect import flow, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from cereals_core.errors import ServerError
from deployments.environment import names_server, prepare_environment, server_named


class Refusing(BaseHTTPRequestHandler):
    """A Prefect server that refuses whatever is sent; `version` is what it says of itself."""

    version: Any = "3.1.4"

    def reply(self, code: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if "csrf" in self.path:
            self.reply(422, {"detail": "CSRF protection is disabled."})
        else:
            self.reply(200, self.version if "version" in self.path else True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.reply(422, {"exception_message": "Invalid request received."})

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api"
    server.shutdown()


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.1.4", f"it is of version 3.1.4, older than this client ({installed}): upgrade it"),
        ("3.99.0", f"it is of version 3.99.0, newer than this client ({installed}): upgrade prefect here"),
        (installed, f"it has the client's version, {installed}: look into its log"),
    ],
    ids=["older", "newer", "the same"],
)
def test_a_server_that_refuses_is_told_by_its_version(
    version: Any, said: str, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Refusing, "version", version)
    with temporary_settings({PREFECT_API_URL: refusing}), pytest.raises(ServerError) as told, server_named():
        flow(lambda: 1, name="nothing")()
    assert f"Prefect server {refusing}: it answers 422 to POST /api/flows/" in str(told.value)
    assert said in str(told.value)


def test_a_server_that_is_gone_does_not_answer() -> None:
    settings = {PREFECT_API_URL: "http://127.0.0.1:9/api", PREFECT_CLIENT_MAX_RETRIES: 0}
    gone = pytest.raises(ServerError, match="9/api: no answer")
    with temporary_settings(settings), gone, server_named(), get_client(sync_client=True) as client:
        client.read_flows()


def test_a_server_of_another_generation_is_told_so(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refusing, "version", "2.19.0")
    with temporary_settings({PREFECT_API_URL: refusing}), pytest.raises(ServerError) as told, server_named():
        flow(lambda: 1, name="nothing")()
    assert f"Prefect server {refusing}: Found incompatible versions" in str(told.value)


@pytest.mark.parametrize("before", [None, "", "intranet", "localhost,intranet", "127.0.0.1, other"])
def test_this_host_is_reached_without_a_proxy(
    before: str | None, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False) if before is None else monkeypatch.setenv(name, before)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    prepare_environment()
    assert httpx.get(f"{refusing}/health", timeout=5).status_code == 200
    names = os.environ["NO_PROXY"].split(",")
    assert names[-2:] == ["127.0.0.1", "localhost"]
    assert len(names) == len(set(names))
    assert ("intranet" in names) == ("intranet" in (before or ""))
    prepare_environment()
    assert os.environ["NO_PROXY"].split(",") == names


def test_a_server_is_named_by_the_environment_or_a_profile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not names_server()
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    assert names_server()
    monkeypatch.delenv("PREFECT_API_URL")
    (tmp_path / "prefect.toml").touch()
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        assert names_server()
    with temporary_settings(restore_defaults=[PREFECT_API_URL]):
        assert not names_server()
