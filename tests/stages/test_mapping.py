from pathlib import Path

import naive
import numpy as np
import pytest
import torch
from one_image import OneByOne
from small_campaign import small_settings

from cereals_core.datasets import open_truth
from cereals_core.information import MEASURES, SAMPLED_MEASURES, quantise
from cereals_core.models.fcn8s import FCN8s
from cereals_core.prediction import Predictor
from cereals_core.seeding import rng
from tasks import mapping
from tasks.mapping import class_map, cost_map, info_map, true_cost_map
from tasks.oracle import seed_set
from tasks.pool import check_pool
from tasks.running.stage import Stage
from tasks.running.work import Work
from tasks.store.layout import MAPS, WEIGHTS, Campaign
from tasks.store.ledger import Ledger
from tasks.store.maps import MapStore
from tasks.store.pool import Pool, open_pool
from tasks.store.products import Product

pytestmark = pytest.mark.usefixtures("one_thread")
ROUND = 3


def run(campaign: Campaign, stage: Stage, number: int | None = None, **inputs: Product) -> Product:
    """What a stage's body leaves, without Prefect."""
    work = Work(stage.name, campaign, number, campaign.folder / f".{stage.name}.0", {})
    work.folder.mkdir(parents=True, exist_ok=True)
    stage.body(work, **inputs)
    return product_of(work.folder, **work.facts)


def product_of(folder: Path, **facts: object) -> Product:
    return Product(folder, "digest", "fingerprint", "stage", elapsed_s=0, total_bytes=0, facts=facts)


def maps_of(product: Product, pool: Pool) -> dict[str, np.ndarray]:
    store = MapStore(product / MAPS)
    return {image.image_id: store.read_image(image) for image in pool.images}


def network(folder: Path, outputs: int) -> tuple[FCN8s, Product]:
    """A network as drawn, and the product that holds it."""
    model = FCN8s(outputs, 0.03)
    model.initialise(torch.Generator().manual_seed(outputs))
    folder.mkdir()
    torch.save(model.state_dict(), folder / WEIGHTS)
    return model, product_of(folder)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Product:
    folder = tmp_path_factory.mktemp("pool")
    return run(Campaign(folder, small_settings(folder)), check_pool)


@pytest.fixture(scope="module")
def ledger(pool: Product) -> Product:
    folder = pool.folder.parent
    return run(Campaign(folder, small_settings(folder)), seed_set, pool=pool)


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    return Campaign(tmp_path, small_settings(tmp_path))


def test_true_cost_maps_are_the_clicks_of_every_image_of_the_pool(campaign: Campaign, pool: Product) -> None:
    made = run(campaign, true_cost_map, pool=pool)
    maps, truth_of = maps_of(made, open_pool(campaign, pool)), open_truth(campaign.settings.data, "pool").truth
    assert made.facts["images"] == 10
    for image_id, clicks in maps.items():
        twin = naive.click_map(truth_of(image_id).clicks, 60, 100)
        np.testing.assert_array_equal(clicks, quantise(twin.astype(np.float32)))
        assert 0 < clicks.sum() <= truth_of(image_id).clicks[:, 2].sum()


def test_true_cost_maps_belong_to_the_data_alone(campaign: Campaign) -> None:
    other = Campaign(campaign.folder, small_settings(campaign.folder, window_px=32, cost="true"))
    recipes = [true_cost_map.recipe(each, None, {"pool": product_of(campaign.folder)}) for each in (campaign, other)]
    assert recipes[0].fingerprint == recipes[1].fingerprint
    assert recipes[0].settings.keys() == {"data", "round"}


def test_finished_shards_are_kept(campaign: Campaign, pool: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    images = open_pool(campaign, pool)
    expected = maps_of(run(campaign, true_cost_map, pool=pool), images)
    store, (_, second, _) = MapStore(campaign.folder / ".true-cost-map.0" / MAPS), images.shards()
    (store.folder / second.group / "c" / str(second.index) / "0" / "0").unlink()
    calls, click_map = [], mapping.click_map
    monkeypatch.setattr(mapping, "click_map", lambda *arguments: calls.append(arguments) or click_map(*arguments))
    again = maps_of(run(campaign, true_cost_map, pool=pool), images)
    assert len(calls) == len(second.images) == 4
    np.testing.assert_equal(again, expected)


@pytest.mark.parametrize("name", [*MEASURES, *SAMPLED_MEASURES])
def test_information_maps_are_those_of_the_named_measure(
    name: str, tmp_path: Path, pool: Product, ledger: Product
) -> None:
    settings = small_settings(tmp_path, information=name, dropout_samples=5)
    campaign, dataset = Campaign(tmp_path, settings), open_truth(settings.data, "pool")
    model, product = network(tmp_path / "train-seg", len(dataset.class_names))
    made = run(campaign, info_map, ROUND, pool=pool, ledger=ledger, model=product)
    predictor, images = OneByOne(Predictor(model)), open_pool(campaign, pool)
    maps = maps_of(made, images)
    assert made.facts["images"] == 8
    for image in images.images:
        pixels, found = dataset.image(image.image_id), maps[image.image_id]
        if Ledger(ledger).is_full(image):
            assert np.isnan(found).all()
        elif name in MEASURES:
            np.testing.assert_array_equal(found, predictor.information(pixels, MEASURES[name]))
        else:
            masks = rng(7, "info-map", ROUND, image.image_id)
            expected = predictor.sampled_information(pixels, SAMPLED_MEASURES[name], 5, 0.5, masks)
            np.testing.assert_array_equal(found, expected)


def test_cost_maps_are_the_cost_networks_clicks(campaign: Campaign, pool: Product, ledger: Product) -> None:
    images = open_pool(campaign, pool)
    model, product = network(campaign.folder / "train-cost", 1)
    maps = maps_of(run(campaign, cost_map, ROUND, pool=pool, ledger=ledger, model=product), images)
    dataset, predictor = open_truth(campaign.settings.data, "pool"), OneByOne(Predictor(model))
    free = [image.image_id for image in images.images if not Ledger(ledger).is_full(image)]
    assert {image_id for image_id, clicks in maps.items() if np.isfinite(clicks).all()} == set(free)
    for image_id in free:
        np.testing.assert_array_equal(maps[image_id], predictor.clicks(dataset.image(image_id)))


def test_class_maps_are_the_most_probable_classes(campaign: Campaign, pool: Product, ledger: Product) -> None:
    images = open_pool(campaign, pool)
    dataset = open_truth(campaign.settings.data, "pool")
    model, product = network(campaign.folder / "train-seg", len(dataset.class_names))
    made = run(campaign, class_map, ROUND, pool=pool, ledger=ledger, model=product)
    counts, free = np.zeros(len(dataset.class_names), int), 0
    for image_id, classes in maps_of(made, images).items():
        if np.isnan(classes).all():
            continue
        pixels = torch.from_numpy(dataset.image(image_id))[None].permute(0, 3, 1, 2)
        with torch.inference_mode():
            logits = model.eval()(pixels)[0].numpy()
        np.testing.assert_array_equal(classes, logits.argmax(axis=0))
        counts += np.bincount(classes.astype(int).ravel(), minlength=len(counts))
        free += 1
    assert free == 8
    assert made.facts["cells"] == counts.tolist()
    assert (counts > 0).sum() > 1


@pytest.mark.parametrize("name", ["entropy", "vote_entropy"])
def test_maps_of_batches_do_not_depend_on_shards(name: str, tmp_path: Path, pool: Product, ledger: Product) -> None:
    """Batches end with their shard; those that are too small are filled up, since the last bits depend on the size."""
    settings = small_settings(tmp_path, information=name)
    _, product = network(tmp_path / "train-seg", len(pool.facts["class_names"]))
    made = {}
    for batch_images, shard_images in ((1, 4), (3, 4), (3, 10)):
        compute = {"batch_images": batch_images, "shard_images": shard_images}
        changed = settings.model_copy(update={"compute": settings.compute.model_copy(update=compute)})
        campaign = Campaign(tmp_path / f"{batch_images}-{shard_images}", changed)
        found = run(campaign, info_map, ROUND, pool=pool, ledger=ledger, model=product)
        maps = maps_of(found, open_pool(campaign, pool))
        made[batch_images, shard_images] = np.stack([maps[image_id] for image_id in sorted(maps)])
    np.testing.assert_array_equal(made[3, 4], made[3, 10])
    assert np.isfinite(made[3, 4]).all(axis=(1, 2)).sum() == 8
    assert (np.nan_to_num(made[1, 4]) != np.nan_to_num(made[3, 4])).mean() < 0.05
