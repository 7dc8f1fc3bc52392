"""`cereals up --database`: a campaign whose runs are kept in PostgreSQL."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployed import cereals, children_of, ended, free_port, table, write_toml
from prefect.client.orchestration import SyncPrefectClient

from cereals_core.settings import CampaignSettings

pytestmark = pytest.mark.system


def programs() -> Path | None:
    """The folder of PostgreSQL's programs, which Debian keeps off the PATH."""
    on_path = shutil.which("pg_ctl")
    folders = [*sorted(Path("/usr/lib/postgresql").glob("*/bin")), *([Path(on_path).parent] if on_path else [])]
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@pytest.fixture
def database() -> Iterator[str]:
    """Address of an empty database on a PostgreSQL of our own; it refuses root, which then becomes nobody."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    user = "nobody" if os.getuid() == 0 else None
    folder, port = Path(tempfile.mkdtemp(prefix="cereals-pg-", dir="/tmp")), free_port()
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)

    def run(program: str, *arguments: str) -> None:
        subprocess.run(
            [found / program, *arguments], user=user, cwd=folder, check=True, capture_output=True, timeout=60
        )

    data = str(folder / "data")
    run("initdb", "--pgdata", data, "--username", "cereals", "--auth", "trust", "--no-sync")
    settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
    run("pg_ctl", "start", "--wait", "--pgdata", data, "--log", str(folder / "log"), "--options", settings)
    try:
        yield f"postgresql+asyncpg://cereals@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "stop", "--pgdata", data, "--mode", "fast")
        shutil.rmtree(folder)


def test_a_campaign_runs_with_its_runs_in_postgresql(
    database: str, small: CampaignSettings, finished: CampaignSettings, tmp_path: Path
) -> None:
    file, port = write_toml(small, tmp_path / "small.toml"), free_port()
    home = {"PREFECT_HOME": str(tmp_path / "prefect"), "CUDA_VISIBLE_DEVICES": ""}
    try:
        cereals(home, "up", file, "--port", port, "--database", database)
        with SyncPrefectClient(f"http://127.0.0.1:{port}/api") as client:
            deployment = client.read_deployment_by_name("campaign/small")
            run = ended(client, client.create_flow_run_from_deployment(deployment.id).id)
            print(f"\n{table([run, *children_of(client, run)])}")
            assert run.state is not None
            assert (run.state_name, run.state.message) == ("Completed", "all 2 rounds of queries are done")
            assert [each.name for each in children_of(client, run)] == [f"small round {number}" for number in range(3)]
    finally:
        cereals(home, "down")
    assert not (tmp_path / "prefect" / "prefect.db").exists()
    assert (small.path / "ledger.parquet").read_bytes() == (finished.path / "ledger.parquet").read_bytes()
