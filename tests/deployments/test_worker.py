"""Workers of this host for a scheduler: TLS where it is asked for, and a warning where anybody may send them work."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from command_line import CEREALS
from distributed import Client, LocalCluster, Security
from rich.console import Console

from cereals_core.errors import WorkersError
from deployments import worker

ROLES = ("scheduler", "worker", "client")


def certificates(folder: Path) -> dict[str, str]:
    """Dask's settings of TLS for all roles, as its environment variables, with files of certificates."""
    made = Security.temporary()
    ca, cert, key = (folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
    ca.write_text(made.tls_ca_file)
    cert.write_text(made.tls_worker_cert)
    key.write_text(made.tls_worker_key)
    files = {f"{role.upper()}__{part}": file for role in ROLES for part, file in (("CERT", cert), ("KEY", key))}
    return {f"DASK_DISTRIBUTED__COMM__TLS__{name}": str(file) for name, file in {"CA_FILE": ca, **files}.items()}


@contextmanager
def working(address: str, **environment: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen([CEREALS, "worker", address], env={**os.environ, **environment}, text=True) as process:
        yield process
        process.kill()


def test_workers_and_campaigns_speak_tls_by_dask_s_own_settings(tmp_path: Path) -> None:
    settings = certificates(tmp_path)
    files = {part: settings[f"DASK_DISTRIBUTED__COMM__TLS__CLIENT__{part}"] for part in ("CERT", "KEY")}
    security = Security(
        require_encryption=True,
        tls_ca_file=settings["DASK_DISTRIBUTED__COMM__TLS__CA_FILE"],
        **{
            f"tls_{role}_{part.lower()}": file
            for role in ("client", "scheduler", "worker")
            for part, file in files.items()
        },
    )
    with (
        LocalCluster(
            n_workers=0, protocol="tls://", security=security, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        working(cluster.scheduler_address, **settings),
        Client(cluster, security=security) as client,
    ):
        client.wait_for_workers(1, timeout=200)
        (there,) = client.scheduler_info()["workers"]
        assert there.startswith("tls://")
        assert client.submit(os.getpid).result() != os.getpid()


def refused(address: str, name: str) -> None:
    raise OSError("refused")


@pytest.mark.parametrize(
    ("address", "own", "warns"),
    [
        ("tcp://10.0.0.1:8786", "10.0.0.7", True),
        ("tls://10.0.0.1:8786", "10.0.0.7", False),
        ("tcp://127.0.0.1:8786", "127.0.0.1", False),
    ],
)
def test_work_from_anybody_is_warned_of(address: str, own: str, warns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(record=True)
    monkeypatch.setattr(worker, "console", console)
    monkeypatch.setattr(worker, "get_ip", lambda host: own)
    monkeypatch.setattr(worker, "worker_specs", lambda host: {"cpu": {"cls": refused, "options": {}}})
    with pytest.raises(WorkersError, match="no Dask scheduler answers"):
        worker.serve_workers(address)
    assert (f"workers at {own} run whatever is sent by anyone" in console.export_text()) == warns
