import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import moto.settings
import numpy as np
import pytest
import s3fs
import torch
from aiobotocore.client import AioBaseClient
from checkout import ROOT
from made_pools import POOL
from moto_store import BUCKET, environment, free_port, store_apart, store_here
from prefect.settings import PREFECT_API_URL
from same_products import digests
from small_campaign import small_settings

from cereals_core.errors import ProductError, SettingsError
from cereals_core.grid import map_shape
from cereals_core.location import open_location
from cereals_core.models.build import build_network
from cereals_core.settings import CampaignSettings
from tasks.running.opening import open_campaign, writing
from tasks.store import tables
from tasks.store.layout import WEIGHTS
from tasks.store.maps import MapStore
from tasks.store.products import MANIFEST, Product, Recipe, find_product, making, require
from tasks.store.storage import refuse_unreachable, sizes_below, written_whole
from tasks.training import load_model

RECIPE = Recipe("nms", 1, {}, {})


pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    with store_here() as address:
        yield address


@pytest.fixture
def folder(store: str, request: pytest.FixtureRequest) -> Path:
    """A prefix of the store that no other test uses."""
    return open_location(f"s3://{BUCKET}/{request.node.name.replace('[', '-').replace(']', '')}")


def requests(patch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the requests to the store by their kind from now on."""
    counted: Counter[str] = Counter()
    real = AioBaseClient._make_api_call

    async def call(self: AioBaseClient, kind: str, options: Any) -> Any:
        counted[kind] += 1
        return await real(self, kind, options)

    patch.setattr(AioBaseClient, "_make_api_call", call)
    return counted


def make(folder: Path, content: bytes = b"12345") -> Product:
    with making(folder, RECIPE) as (work, _):
        with written_whole(work / "table") as stream:
            stream.write(content)
        (work / "maps" / "c").write_bytes(content)
    return require(find_product(folder, RECIPE), folder)


def test_a_product_takes_its_place_and_costs_few_requests(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = requests(monkeypatch)
    made = make(folder / "nms")
    assert sizes_below(folder).keys() == {"nms/table", "nms/maps/c", f"nms/{MANIFEST}"}
    assert counted["PutObject"] == 3
    assert counted.total() <= 40
    counted.clear()
    assert find_product(folder / "nms", RECIPE) == made
    assert counted == {"ListObjectsV2": 1}
    assert make(folder / "nms", b"other").digest != made.digest
    assert sizes_below(folder).keys() == {"nms/table", "nms/maps/c", f"nms/{MANIFEST}"}


def test_a_product_that_is_missing_costs_one_request(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = requests(monkeypatch)
    assert find_product(folder / "nms", RECIPE) is None
    assert counted == {"ListObjectsV2": 1}


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "flipped": lambda content: content[:9] + bytes([content[9] ^ 1]) + content[10:],
    "truncated": lambda content: content[:-1],
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_chunk_of_maps_is_noticed(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    store = MapStore.create(folder, POOL)
    shard = POOL.shards()[0]
    store.write(shard, np.ones((len(shard.images), *map_shape(shard.height, shard.width)), np.float16))
    assert store.has(shard)
    assert store.read(shard).all()
    (name,) = (name for name in sizes_below(folder) if "/c/" in name)
    (folder / name).write_bytes(damage((folder / name).read_bytes()))
    with pytest.raises(ProductError, match=r"are damaged"):
        MapStore(folder).read(shard)


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_table_is_noticed(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder / tables.CLASSES.file
    tables.CLASSES.write(file.parent, [{"class_name": str(row), "iou": row / 7} for row in range(99)])
    assert len(tables.CLASSES.read(file.parent)) == 99
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ProductError, match=r"classes\.parquet: not readable"):
        tables.CLASSES.read(file.parent)


def test_any_flipped_bit_of_weights_is_noticed_or_does_nothing(folder: Path) -> None:
    settings = small_settings(folder)
    model = build_network(settings.model, 2)
    product = Product(folder, "digest", "fingerprint", "train-seg", elapsed_s=0, total_bytes=0)
    with written_whole(folder / WEIGHTS) as stream:
        torch.save(model.state_dict(), stream)
    content, stream_of_bits = (folder / WEIGHTS).read_bytes(), np.random.default_rng(1)
    noticed = 0
    for position in stream_of_bits.integers(len(content), size=12):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(stream_of_bits.integers(8))
        (folder / WEIGHTS).write_bytes(damaged)
        try:
            loaded = load_model(settings, 2, product).state_dict()
        except ProductError:
            noticed += 1
        else:
            assert all(torch.equal(loaded[name], weights) for name, weights in model.state_dict().items())
    assert noticed > 6


def refused(folder: str, expected: str) -> None:
    """Opening a campaign there ends soon with what is expected, and leaves nothing."""
    started = time.monotonic()
    with pytest.raises(SettingsError, match=expected) as got:
        open_campaign(small_settings(cast(Path, folder)))
    assert time.monotonic() - started < 15
    assert str(got.value).startswith(f'folder = "{folder}": ')


def test_a_missing_bucket_is_named_and_not_made(store: str) -> None:
    refused("s3://bukket/small", r'there is no bucket "bukket" .* make it, or correct the folder$')
    assert not s3fs.S3FileSystem().exists("bukket")


def test_wrong_keys_are_refused(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_unreachable(open_location(f"s3://{BUCKET}/small"))
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)
    refused(f"s3://{BUCKET}/small", r"access is denied .* set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROF")


def test_missing_keys_are_refused(store: str, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    s3fs.S3FileSystem.clear_instance_cache()
    refused(
        str(folder), r"access is denied \(NoCredentialsError: Unable to locate credentials\); set AWS_ACCESS_KEY_ID"
    )
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("listening", [False, True], ids=["nobody listens", "nobody answers"])
def test_an_unreachable_server_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch, listening: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1] if listening else free_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setattr("tasks.store.storage.ANSWERS_WITHIN_S", 1.0)
        s3fs.S3FileSystem.clear_instance_cache()
        refused(
            str(folder),
            r"the object store does not answer as it should \(.*\); check the network and AWS_ENDPOINT_URL$",
        )
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_campaign_has_one_writer_and_its_settings_there(folder: Path) -> None:
    campaign = open_campaign(small_settings(folder))
    with writing(campaign):
        assert sizes_below(folder).keys() == {"lock", "settings.json"}
    assert open_campaign(small_settings(folder)) == campaign
    other = small_settings(folder, window_px=32)
    with pytest.raises(SettingsError, match=r"acquisition\.window_px: 24 -> 32"):
        open_campaign(other)


# Each kills its own process, for real and without a word, in the middle of the named step.
KILLS = {
    "a training": "import tasks.training as t; t.CHECKPOINT_EVERY_S = 0; owner, name, calls = t, '_save_checkpoint', 3",
    "a map": "from tasks.store.maps import MapStore as owner; name, calls = 'write', 5",
    "a move": "import tasks.store.storage as owner; name, calls = 'remove', 9",
}
DRIVER = """
import os, signal, sys
{setup}
inner, left = getattr(owner, name), [calls]
def fatal(*arguments):
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(*arguments)
setattr(owner, name, fatal)
from cereals_core.settings import CampaignSettings
from flows.campaign import run_campaign
run_campaign(CampaignSettings.model_validate_json(sys.argv[1]))
"""


@pytest.mark.system
def test_a_campaign_in_a_store_is_that_on_a_disk_and_bears_kills(finished: CampaignSettings, tmp_path: Path) -> None:
    from flows.campaign import run_campaign

    with store_apart(tmp_path), pytest.MonkeyPatch.context() as patch:
        settings = small_settings(cast(Path, f"s3://{BUCKET}/undisturbed"))
        counted = requests(patch)
        assert run_campaign(settings) == "all 2 rounds of queries are done"
        print(f"requests: {dict(counted)}, {counted.total()} in all")
        assert counted.total() < 1500
        assert digests(settings) == digests(finished)
        counted.clear()
        run_campaign(settings)
        print(f"requests of a second run: {dict(counted)}, {counted.total()} in all")
        assert counted.total() < 250

        killed = small_settings(cast(Path, f"s3://{BUCKET}/killed"))
        for step, setup in KILLS.items():
            command = [sys.executable, "-c", DRIVER.format(setup=setup), killed.model_dump_json()]
            server = environment(PREFECT_API_URL=PREFECT_API_URL.value() or "")
            ended = subprocess.run(
                command, env=server, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
            )
            assert ended.returncode == -signal.SIGKILL, (step, ended.stderr)
        run_campaign(killed)
        assert digests(killed) == digests(finished)
        assert not [name for name in sizes_below(killed.path) if "/." in name]
