import itertools
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_campaign import frozen_settings

from cereals_core.batches import Image
from cereals_core.datasets import open_images
from cereals_core.errors import ProductError
from cereals_core.models.build import build_encoder
from flows.campaign import begin, run_quietly
from tasks import features as stage_file
from tasks import training
from tasks.running import inputs
from tasks.running.inputs import LabelledFeatures, StoredFeatures, open_features
from tasks.store import tables
from tasks.store.features import FeatureStore
from tasks.store.history import product_of
from tasks.store.layout import WEIGHTS, Campaign
from tasks.store.ledger import Ledger
from tasks.store.pool import open_pool
from tasks.store.products import Product
from tasks.telling import progress
from tasks.telling.progress import Interrupted, request_stop

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    folder = tmp_path_factory.mktemp("frozen")
    return Campaign(folder, frozen_settings(folder))


@pytest.fixture(scope="module")
def made(campaign: Campaign) -> Product:
    given, _ = begin(campaign)
    assert given.features is not None
    return given.features


def computed(campaign: Campaign, image: np.ndarray) -> Image:
    """An image's features by the encoder itself, in float32."""
    weights = torch.load(product_of(campaign, "pretrained", None) / WEIGHTS, weights_only=True)
    encoder = build_encoder(campaign.settings.model)
    encoder.load_state_dict({name.removeprefix("encoder."): value for name, value in weights.items()}, strict=False)
    with torch.inference_mode():
        found = encoder(torch.from_numpy(image)[None].permute(0, 3, 1, 2))
    return tuple(each[0].permute(1, 2, 0).numpy() for each in found.maps)


def test_features_of_both_splits_are_the_encoders_in_half_precision(campaign: Campaign, made: Product) -> None:
    for split in ("pool", "eval"):
        source, stored = open_images(campaign.settings.data, split), open_features(campaign, made, split)
        assert list(stored.images) == list(source.image_ids)
        for image_id in source.image_ids:
            for found, expected in zip(stored.image(image_id), computed(campaign, source.image(image_id)), strict=True):
                assert found.dtype == np.float16
                np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3 * abs(expected).max())
    fine, middle, coarse = stored.image(source.image_ids[0])
    assert [each.shape for each in (fine, middle, coarse)] == [(8, 13, 40), (4, 7, 112), (2, 4, 320)]
    numbers = sum(each.size for each in (fine, middle, coarse))
    assert (made.facts["images"], made.facts["image_bytes"]) == (13, 2 * numbers)


def test_fewer_channels_are_the_principal_components_of_the_pools_features(tmp_path: Path, made: Product) -> None:
    settings = frozen_settings(tmp_path)
    settings = settings.model_copy(update={"model": settings.model.model_copy(update={"feature_channels": 60})})
    campaign = Campaign(tmp_path, settings)
    given, _ = begin(campaign)
    assert given.features is not None
    assert given.features.facts["channels"] == [5, 14, 41]
    stored = open_features(campaign, given.features, "pool")
    source = open_images(settings.data, "pool")
    exact = [computed(campaign, source.image(image_id)) for image_id in stored.images]
    for index, each in enumerate(zip(*exact, strict=True)):
        cells = np.concatenate([values.reshape(-1, values.shape[-1]) for values in each]).astype(np.float64)
        variances = np.linalg.eigvalsh(np.cov(cells.T, bias=True))[::-1]
        kept = np.concatenate(
            [stored.image(name)[index].reshape(-1, stored.image(name)[index].shape[-1]) for name in stored.images]
        ).astype(np.float64)
        np.testing.assert_allclose(kept.mean(0), 0, atol=0.01)
        np.testing.assert_allclose(kept.var(0), variances[: kept.shape[1]], rtol=0.01)


def test_windows_read_from_disk_are_those_kept_in_memory(campaign: Campaign, made: Product) -> None:
    kept = open_features(campaign, made, "pool")
    from_disk = StoredFeatures(FeatureStore(made / "pool"), kept.images.values(), (40, 112, 320))
    from_disk.keeps = False
    targets = {image_id: np.zeros((8, 13), np.uint8) for image_id in kept.images}
    places = np.array([(index, row, column) for index in (0, 7) for row in (0, 4) for column in (0, 4, 8, 12)])
    (first, labels), (second, same) = (
        next(iter(LabelledFeatures(source, targets).windows_in_order([places], 4))) for source in (kept, from_disk)
    )
    assert not from_disk._kept
    assert first.fine.shape == (16, 6, 6, 40)
    assert all(np.array_equal(a, b) for a, b in zip((*first, labels), (*second, same), strict=True))


def test_large_images_are_cut_into_tiles_of_which_a_window_reads_some(tmp_path: Path) -> None:
    rows = [{"image_id": f"{index}", "height": 600, "width": 1000, "group": "g", "row": index} for index in range(3)]
    pool = stage_file.Pool(tables.POOL.of(rows), 2)
    store = FeatureStore.create(tmp_path, pool, (2, 3, 4))
    stream = np.random.default_rng(0)
    shapes = [(75, 125, 2), (38, 63, 3), (19, 32, 4)]
    values = {
        shard.index: [stream.normal(size=(len(shard.images), *shape)).astype(np.float16) for shape in shapes]
        for shard in pool.shards()
    }
    for shard in pool.shards():
        assert not store.has(shard)
        store.write(shard, values[shard.index])
        assert store.has(shard)
    for image in pool.images:
        whole = [each[image.row % 2] for each in values[image.row // 2]]
        for found, expected in zip(FeatureStore(tmp_path).read_image(image), whole, strict=True):
            np.testing.assert_array_equal(found, expected)
        for plane, expected in zip(store.planes(image), whole, strict=True):
            np.testing.assert_array_equal(plane[3:9, 11:17], expected[3:9, 11:17])
    files = list(tmp_path.rglob("c/*/0/0/0"))
    assert len(files) == 2 * 3  # a file for each shard and stride


def test_damage_is_told_with_the_folder(campaign: Campaign, made: Product, tmp_path: Path) -> None:
    folder = tmp_path / "features"
    shutil.copytree(made.folder, folder)
    file = next((folder / "pool").rglob("8/c/0/0/0/0"))
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    image = open_pool(campaign, product_of(campaign, "pool", None)).images[0]
    with pytest.raises(ProductError, match=r"row 0 is damaged .*; remove the campaign's features and run again"):
        FeatureStore(folder / "pool").read_image(image)


def ledger_of(campaign: Campaign) -> Any:
    return Ledger(product_of(campaign, "oracle-query", 1)).table


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask to stop once so many units of work were counted."""
    monkeypatch.setattr(progress, "_stop", threading.Event())
    counted, original = itertools.count(1), progress.Tracker.__call__

    def call(self: Any, *args: Any, **keys: Any) -> Any:
        if next(counted) == count:
            request_stop()
        return original(self, *args, **keys)

    monkeypatch.setattr(progress.Tracker, "__call__", call)


@pytest.mark.parametrize("stopped_in", ["features", "train-seg", "train-cost"])
def test_a_campaign_stopped_anywhere_ends_in_the_same_ledger(
    stopped_in: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_S", -1.0)
    settings = frozen_settings(tmp_path / "a", batch_windows=4)
    undisturbed = Campaign(tmp_path / "a", settings)
    run_quietly(undisturbed)
    other = Campaign(tmp_path / "b", settings.model_copy(update={"folder": str(tmp_path / "b")}))
    original, stopped = progress.track, []

    def told(name: str, *args: Any, **keys: Any) -> Any:
        if stopped_in in name and len(stopped) < 1:
            stopped.append(name)
            stop_after(5 if stopped_in == "features" else 2, monkeypatch)
        return original(name, *args, **keys)

    monkeypatch.setattr("tasks.running.work.track", told)
    with pytest.raises(Interrupted):
        run_quietly(other)
    monkeypatch.undo()
    if stopped_in == "features":
        begun = next((tmp_path / "b").glob(".features.*"))
        assert len(list(begun.rglob("8/c/*/0/0/0"))) >= 1  # the first shard is kept
    run_quietly(other)
    assert ledger_of(other).equals(ledger_of(undisturbed))


def test_no_truth_and_no_image_is_read_once_features_are_there(
    campaign: Campaign, made: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings and maps take features: reading a picture of the pool fails."""
    from tasks.mapping import info_map
    from tasks.running.work import Work
    from tasks.training import train_seg

    def refuse(*_: Any) -> Any:
        raise AssertionError("an image was read")

    monkeypatch.setattr(inputs, "pool_images", refuse)
    monkeypatch.setattr(inputs, "open_images", refuse)
    pool, ledger = (product_of(campaign, name, None) for name in ("pool", "seed-set"))
    facts: dict[str, Any] = {}
    folder = tmp_path / "train"
    folder.mkdir()
    train_seg.body(Work("train-seg", campaign, 0, folder, facts), pool=pool, ledger=ledger, features=made)
    assert facts["steps"] == 8
    model = Product(folder, "", "", "", elapsed_s=0, total_bytes=0)
    maps = tmp_path / "maps"
    maps.mkdir()
    info_map.body(Work("info-map", campaign, 0, maps, {}), pool=pool, ledger=ledger, model=model, features=made)
    assert (maps / "maps.zarr").exists()
