import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cereals_core.data_settings import CityscapesData, SyntheticData
from cereals_core.datasets import open_truth
from cereals_core.datasets.cityscapes import LABEL_IDS, write_cityscapes_layout
from cereals_core.datasets.files import Split
from cereals_core.datasets.synthetic import CLASS_NAMES, SyntheticStreets
from cereals_core.errors import DataError
from cereals_core.grid import VOID


def streets(seed: int = 0, height: int = 64, width: int = 128, split: Split = "pool") -> SyntheticStreets:
    data = SyntheticData(format="synthetic", seed=seed, pool_images=12, eval_images=3, height=height, width=width)
    return SyntheticStreets(data, split)


def test_a_street_by_hand() -> None:
    pool = streets(height=128, width=256)
    assert pool.image_ids[:2] == ["pool-000000", "pool-000001"]
    assert len(pool.image_ids) == 12
    truth = pool.truth("pool-000000")
    assert pool.image("pool-000000").shape == (128, 256, 3)
    assert truth.labels.shape == (128, 256)
    assert CLASS_NAMES[truth.labels[110, 128]] == "road"
    assert truth.labels[127, 128] == VOID


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.integers(32, 150), st.integers(32, 300))
def test_streets_hold_their_promises(seed: int, height: int, width: int) -> None:
    dataset = streets(seed, height, width)
    truth = dataset.truth("pool-000003")
    assert set(np.unique(truth.labels).tolist()) <= {*range(len(CLASS_NAMES)), VOID}
    assert (truth.clicks >= 0).all()
    assert (truth.clicks[:, :2] <= (height, width)).all()
    assert (truth.clicks[:, :2] * 16 % 1 == 0).all()
    assert (truth.clicks[:, 2] == 1).all()
    assert dataset.image("pool-000003").shape == (height, width, 3)


def test_a_street_depends_on_seed_split_and_number_alone() -> None:
    pool, again = streets(), streets()
    backwards = {image_id: again.image(image_id) for image_id in reversed(again.image_ids)}
    assert all((pool.image(image_id) == backwards[image_id]).all() for image_id in pool.image_ids)
    first = pool.image("pool-000000")
    others = (
        pool.image("pool-000001"),
        streets(seed=1).image("pool-000000"),
        streets(split="eval").image("eval-000000"),
    )
    assert all((first != other).any() for other in others)


def test_every_class_occurs_and_small_classes_are_rare_but_dense_in_clicks() -> None:
    pool = streets(height=256, width=512)
    truths = [pool.truth(image_id) for image_id in pool.image_ids]
    pixels = np.bincount(np.concatenate([truth.labels.ravel() for truth in truths]), minlength=256)
    clicks = np.zeros(256)
    for truth in truths:
        y, x = np.minimum(truth.clicks[:, :2].astype(int), np.array(truth.labels.shape) - 1).T
        clicks += np.bincount(truth.labels[y, x], minlength=256)
    density = clicks[:9] / pixels[:9]
    assert (pixels[:9] > 0).all()
    assert pixels[CLASS_NAMES.index("traffic sign")] < 0.02 * pixels.sum()
    assert density[CLASS_NAMES.index("person")] > 5 * density[CLASS_NAMES.index("road")]


def test_the_cityscapes_layout_reads_back_the_same(tmp_path: Path) -> None:
    data = SyntheticData(format="synthetic", seed=5, pool_images=3, eval_images=2, height=64, width=128)
    seen: list[None] = []
    write_cityscapes_layout(data, tmp_path / "made", lambda: seen.append(None))
    assert len(seen) == 5
    train_ids = np.full(256, VOID, np.uint8)
    train_ids[: len(CLASS_NAMES)] = [list(LABEL_IDS).index(name) for name in CLASS_NAMES]
    splits: tuple[Split, ...] = ("pool", "eval")
    for split in splits:
        made = SyntheticStreets(data, split)
        read = open_truth(CityscapesData(format="cityscapes", root=tmp_path / "made"), split)
        assert list(read.image_ids) == made.image_ids
        for image_id in made.image_ids:
            truth, expected = read.truth(image_id), made.truth(image_id)
            assert (read.image(image_id) == made.image(image_id)).all()
            assert (truth.labels == train_ids[expected.labels]).all()
            assert (truth.clicks == expected.clicks).all()
    with pytest.raises(DataError, match="made: not empty; remove"):
        write_cityscapes_layout(data, tmp_path / "made")


def test_cityscapes_by_hand(tmp_path: Path) -> None:
    images, truths = (tmp_path / part / "val" / "bonn" for part in ("leftImg8bit", "gtFine"))
    images.mkdir(parents=True)
    truths.mkdir(parents=True)
    ids = np.full((40, 60), 7, np.uint8)
    ids[:10], ids[30:] = 23, 3  # sky above, an ignored class below
    cv2.imwrite(str(images / "bonn_0_leftImg8bit.png"), np.zeros((40, 60, 3), np.uint8))
    cv2.imwrite(str(truths / "bonn_0_gtFine_labelIds.png"), ids)
    polygons = truths / "bonn_0_gtFine_polygons.json"
    objects = [{"label": "sky", "polygon": [[0, 0], [59, 0], [59, 10]]}, {"label": "x", "polygon": [[1, 2]] * 3}]
    polygons.write_text(json.dumps({"objects": objects}))
    dataset = open_truth(CityscapesData(format="cityscapes", root=tmp_path), "eval")
    assert len(dataset.class_names) == 19
    assert list(dataset.image_ids) == ["bonn_0"]
    truth = dataset.truth("bonn_0")
    assert truth.labels[[0, 20, 39], 0].tolist() == [dataset.class_names.index("sky"), 0, VOID]
    assert truth.clicks.tolist() == [[0, 0, 1], [0, 59, 1], [10, 59, 1], *[[2, 1, 1]] * 3]
    polygons.write_text(json.dumps({"objects": [{"label": "sky", "polygon": [[0, 0], [1]]}]}))
    with pytest.raises(DataError, match=r"polygons\.json: object 0 is no ring"):
        dataset.truth("bonn_0")
    polygons.write_text("[]")
    with pytest.raises(DataError, match='no "objects"'):
        dataset.truth("bonn_0")


def test_an_empty_cityscapes_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"leftImg8bit/train: no <city>"):
        open_truth(CityscapesData(format="cityscapes", root=tmp_path), "pool")
