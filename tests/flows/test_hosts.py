"""A campaign on two other hosts: network namespaces with addresses and names of their own, which root can make."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from moto_store import BUCKET, store_apart
from same_products import digests, manifests
from small_campaign import small_settings

from cereals_core.settings import CampaignSettings
from flows.campaign import run_campaign

CEREALS, DASK = (Path(sys.executable).parent / name for name in ("cereals", "dask"))
HOSTS = {"host-a": "10.77.0.2", "host-b": "10.77.0.3"}
HERE, PORT = "10.77.0.1", 8786
SCHEDULER = f"tcp://{HERE}:{PORT}"

pytestmark = [
    pytest.mark.system,
    pytest.mark.usefixtures("prefect_server"),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root, and iproute2's `ip`"),
]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextmanager
def network() -> Iterator[None]:
    """A bridge, and a namespace for each host with one end of a cable to it."""
    with ExitStack() as undo:
        ip("link", "add", "cereals-br", "type", "bridge")
        undo.callback(ip, "link", "delete", "cereals-br")
        ip("address", "add", f"{HERE}/24", "dev", "cereals-br")
        ip("link", "set", "cereals-br", "up")
        for number, (host, address) in enumerate(HOSTS.items()):
            ip("netns", "add", host)
            undo.callback(ip, "netns", "delete", host)
            ip("link", "add", f"cereals-{number}", "type", "veth", "peer", "name", "eth0", "netns", host)
            ip("link", "set", f"cereals-{number}", "master", "cereals-br", "up")
            ip("-n", host, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", host, "link", "set", device, "up")
        yield


@contextmanager
def running(log: Path, *command: object, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a group of its own, killed with all it has started."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            list(map(str, command)),
            stdout=stream,
            stderr=stream,
            env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
            start_new_session=True,
        )
        try:
            yield process
        finally:
            kill(process)


def kill(process: "subprocess.Popen[bytes]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[dict[str, "subprocess.Popen[bytes]"]]:
    """The processes that serve a scheduler here with each of the hosts."""
    with network(), ExitStack() as stack:
        stack.enter_context(
            running(tmp_path / "scheduler.log", DASK, "scheduler", "--host", HERE, "--port", PORT, "--no-dashboard")
        )
        yield {
            host: stack.enter_context(
                running(
                    tmp_path / f"{host}.log",
                    *("ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c"),
                    f"hostname {host} && exec {CEREALS} worker {SCHEDULER}",
                    AWS_ENDPOINT_URL=f"http://{HERE}:5057",
                    AWS_ACCESS_KEY_ID="testing",
                    AWS_SECRET_ACCESS_KEY="testing",
                    AWS_DEFAULT_REGION="us-east-1",
                )
            )
            for host in HOSTS
        }


def settings_of(folder: str, cluster: str) -> CampaignSettings:
    """A small campaign whose information maps take some seconds and many shards."""
    settings = small_settings(Path("unused"), information="vote_entropy", dropout_samples=100)
    data = settings.data.model_copy(update={"pool_images": 40})
    compute = settings.compute.model_copy(update={"cluster": cluster, "shard_images": 2})
    return settings.model_copy(update={"folder": folder, "data": data, "compute": compute})


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> CampaignSettings:
    """The same campaign in one process."""
    settings = settings_of(str(tmp_path_factory.mktemp("alone") / "campaign"), "none")
    run_campaign(settings)
    return settings


def ran_on(settings: CampaignSettings) -> dict[str, list[str]]:
    return {folder: each["facts"].get("hosts", []) for folder, each in manifests(settings)}


def show(title: str, settings: CampaignSettings, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{title}")
        for folder, names in ran_on(settings).items():
            print(f"  {folder:<28} {', '.join(names) or 'the process of the flow'}")


def test_a_host_lost_in_the_middle_of_a_stage_changes_nothing(
    hosts: dict[str, "subprocess.Popen[bytes]"],
    alone: CampaignSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = settings_of(str(tmp_path / "campaign"), SCHEDULER)
    killed_with: list[int] = []

    def lose_a_host() -> None:
        chunks: list[Path] = []
        while len(chunks) < 4:
            time.sleep(0.02)
            chunks = list(settings.path.glob("rounds/001/.info-map.*/maps.zarr/*/c/*/0/0"))
        kill(hosts["host-b"])
        killed_with.append(len(chunks))

    watcher = threading.Thread(target=lose_a_host, daemon=True)
    watcher.start()
    assert run_campaign(settings) == "all 2 rounds of queries are done"
    watcher.join(1)
    show(f"host-b was killed when {killed_with} of 20 shards of round 1's info-map were there", settings, capsys)
    assert 4 <= killed_with[0] < 20
    assert digests(settings) == digests(alone)
    hosts_of = ran_on(settings)
    assert hosts_of["rounds/000/info-map"] == ["host-a host-a-cpu", "host-b host-b-cpu"]
    assert hosts_of["rounds/002/train-seg"] == ["host-a host-a-cpu"]


def test_hosts_that_share_no_disk_share_a_store(
    hosts: dict[str, "subprocess.Popen[bytes]"],
    alone: CampaignSettings,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with store_apart(tmp_path, HERE, port=5057):
        settings = settings_of(f"s3://{BUCKET}/campaign", SCHEDULER)
        assert run_campaign(settings) == "all 2 rounds of queries are done"
        show("store on S3", settings, capsys)
        assert digests(settings) == digests(alone)
        assert ran_on(settings)["rounds/000/info-map"] == ["host-a host-a-cpu", "host-b host-b-cpu"]
