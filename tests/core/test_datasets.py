import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from checkout import SHARED_DATA
from hypothesis import given
from hypothesis import strategies as st

from cereals_core.data_settings import CocoData, MasksData
from cereals_core.datasets import open_truth
from cereals_core.datasets.check import check
from cereals_core.datasets.files import read_image, read_mask, scaled_truth
from cereals_core.datasets.polygons import Polygon, polygon_truth
from cereals_core.errors import DataError
from cereals_core.grid import VOID
from cereals_core.truth import Truth

REAL = SHARED_DATA
needs_real_data = pytest.mark.skipif(not REAL.exists(), reason=f"needs the real images in {REAL}, which are not there")
CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")


def picture(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 // height, x * 255 // width, (y + x) % 256], axis=-1).astype(np.uint8)


# --- pictures


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_picture_is_read_as_rgb_and_refused_when_cut_short(tmp_path: Path, suffix: str) -> None:
    file, original = tmp_path / f"a{suffix}", picture(64, 96)
    cv2.imwrite(str(file), original[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    assert np.abs(read_image(file, 1.0).astype(int) - original).mean() < 3
    content = file.read_bytes()
    for share in (0.1, 0.5, 0.9):
        file.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(DataError, match=f"a{suffix}: cut short.*replace it"):
            read_image(file, 1.0)
    file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="can be decoded; replace"):
        read_image(file, 1.0)
    with pytest.raises(DataError, match=r"b\.png: No such file or directory; restore"):
        read_image(tmp_path / "b.png", 1.0)


def test_a_mask_must_have_one_channel(tmp_path: Path) -> None:
    file = tmp_path / "mask.png"
    cv2.imwrite(str(file), picture(8, 8))
    with pytest.raises(DataError, match=r"mask\.png: RGB picture; expected one channel"):
        read_mask(file)


def test_scaling_by_hand(tmp_path: Path) -> None:
    blocks = np.kron(np.array([[0, 100], [200, 60]]), np.ones((64, 64))).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), blocks)
    image = read_image(tmp_path / "a.png", 0.5)
    truth = scaled_truth(Truth(blocks, np.array([(128, 64, 0.5)], np.float32)), 0.5)
    assert image.shape == (64, 64, 3)
    assert (image[:, :, 0] == truth.labels).all()
    assert truth.labels[::32, ::32].tolist() == [[0, 100], [200, 60]]
    assert truth.clicks.tolist() == [[64, 32, 0.5]]
    assert scaled_truth(truth, 0.1).labels.shape == (32, 32)


@given(st.integers(32, 90), st.integers(32, 90), st.floats(0.3, 1))
def test_scaled_truth_keeps_labels_and_clicks_together(height: int, width: int, scale: float) -> None:
    truth = polygon_truth([Polygon(1, np.array([(0, 0), (0, 32), (32, 32), (32, 0)]))], (height, width), 0)
    scaled = scaled_truth(truth, scale)
    far_y, far_x, _ = scaled.clicks[2]
    assert scaled.clicks.shape == truth.clicks.shape
    assert abs(int((scaled.labels == 1).any(axis=1).sum()) - far_y) <= 0.5
    assert abs(int((scaled.labels == 1).any(axis=0).sum()) - far_x) <= 0.5


# --- COCO


def coco_index() -> dict[str, Any]:
    return {
        "categories": [{"id": 7, "name": "wall"}, {"id": 2, "name": "car"}],
        "images": [
            {"id": 1, "file_name": "b.png", "height": 40, "width": 60},
            {"id": 2, "file_name": "a.png", "height": 40, "width": 60},
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 60, 0, 60, 20, 0, 20]]},
            {"id": 2, "image_id": 1, "category_id": 2, "segmentation": [[10, 10, 20, 10, 20, 20]]},
        ],
    }


def write_coco(root: Path, index: Any) -> CocoData:
    (root / "images").mkdir(exist_ok=True)
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(root / "images" / name), picture(40, 60))
    (root / "train.json").write_text(json.dumps(index))
    return CocoData(format="coco", root=root)


def test_coco_by_hand(tmp_path: Path) -> None:
    data = write_coco(tmp_path, coco_index())
    dataset = open_truth(data, "pool")
    assert dataset.class_names == ("car", "wall", "background")
    assert list(dataset.image_ids) == ["a", "b"]
    assert dataset.image("b").shape == (40, 60, 3)
    truth = dataset.truth("b")
    assert truth.labels[[5, 12, 30], [5, 18, 30]].tolist() == [1, 0, 2]
    assert truth.clicks[4:].tolist() == [[10, 10, 1], [10, 20, 1], [20, 20, 1]]
    assert (dataset.truth("a").labels == 2).all()
    void = open_truth(data.model_copy(update={"background": ""}), "pool")
    assert void.class_names == ("car", "wall")
    assert (void.truth("a").labels == VOID).all()


def test_all_problems_of_a_coco_file_are_reported_at_once(tmp_path: Path) -> None:
    index = coco_index()
    index["images"].append({"id": 3, "file_name": "a.jpg", "height": 40, "width": 60})
    index["annotations"] += [
        {"id": 3, "image_id": 9, "category_id": 7, "segmentation": [[0, 0, 1, 1, 0, 1]]},
        {"id": 4, "image_id": 1, "category_id": 8, "segmentation": [[0, 0, 1, 1, 0]]},
        {"id": 5, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 1, 1]]},
        {"id": 6, "image_id": 1, "category_id": 7, "segmentation": {"counts": [3], "size": [40, 60]}},
        {"id": 7, "image_id": 1, "category_id": 7, "segmentation": [[0, 0, 1, 1, 0, float("nan")]]},
    ]
    with pytest.raises(DataError) as caught:
        open_truth(write_coco(tmp_path, index), "pool")
    lines = str(caught.value).splitlines()
    expected = [
        "image id a occurs 2 times",
        "annotation 3 of unknown image 9",
        "annotation 4 of unknown category 8",
        "annotation 4 has a ring of 5 numbers",
        "annotation 5 has a ring of 4 numbers",
        "annotation 6 without polygon",
        "annotation 7 has a ring that is no list of finite numbers",
    ]
    assert len(lines) == len(expected)
    assert all(
        text in line and "train.json" in line and ";" in line for text, line in zip(expected, lines, strict=True)
    )


def _without_images(index: dict[str, Any]) -> None:
    index["images"], index["annotations"] = [], []


def _one_number(index: dict[str, Any]) -> None:
    index["images"][1]["id"] = 1


def _background_twice(index: dict[str, Any]) -> None:
    index["categories"][0]["name"] = "background"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without_images, "lists no image"),
        (_one_number, "two images have one number"),
        (_background_twice, "class name occurs twice"),
        (lambda index: index.pop("images"), 'no list "images"'),
        (lambda index: index["images"][0].pop("width"), r"images\[0\] lacks width"),
        (lambda index: index["categories"].clear(), "1 classes, expected 2 to 255"),
    ],
)
def test_a_spoiled_coco_file_is_refused(
    tmp_path: Path, spoil: Callable[[dict[str, Any]], object], message: str
) -> None:
    index = coco_index()
    spoil(index)
    with pytest.raises(DataError, match=message):
        open_truth(write_coco(tmp_path, index), "pool")


def test_missing_and_broken_json_are_refused(tmp_path: Path) -> None:
    data = CocoData(format="coco", root=tmp_path)
    with pytest.raises(DataError, match=r"^\S*train\.json: No such file"):
        open_truth(data, "pool")
    (tmp_path / "train.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"train\.json: not valid JSON"):
        open_truth(data, "pool")


# --- masks


def write_masks(root: Path, mask: np.ndarray) -> MasksData:
    for folder in ("train", "trainannot"):
        (root / folder).mkdir()
    cv2.imwrite(str(root / "train" / "one.jpg"), picture(*mask.shape))
    cv2.imwrite(str(root / "trainannot" / "one.png"), mask)
    (root / "train.txt").write_text("one\n\n")
    return MasksData(format="masks", root=root, class_names=("ground", "thing"))


def test_masks_by_hand(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20, 30:50] = 1
    mask[30:32, 5:8] = 1  # a speck of 6 px
    mask[:, 59] = 11
    data = write_masks(tmp_path, mask)
    dataset = open_truth(data, "pool")
    truth = dataset.truth("one")
    assert list(dataset.image_ids) == ["one"]
    assert dataset.image("one").shape == (40, 60, 3)
    assert np.unique(truth.labels).tolist() == [0, 1, VOID]
    around_thing = truth.clicks[(truth.clicks[:, 1] > 25) & (truth.clicks[:, 1] < 55)]
    # Four corners, each seen from inside and outside; contours of holes cut their corners, which may cost one more.
    assert 4 <= around_thing[:, 2].sum() <= 6
    assert set(around_thing[:, 2].tolist()) == {0.5}
    assert not ((truth.clicks[:, 0] > 28) & (truth.clicks[:, 0] < 33)).any()
    corners = [(0.5, 0.5, 1), (39.5, 0.5, 1), (0.5, 59.5, 1), (39.5, 59.5, 1)]
    assert set(corners) <= {tuple(click) for click in truth.clicks.tolist()}


def test_missing_files_of_masks_are_found(tmp_path: Path) -> None:
    data = write_masks(tmp_path, np.zeros((40, 60), np.uint8))
    (tmp_path / "train.txt").write_text("one\ntwo\n")
    _, problems = check(open_truth(data, "pool"), None, threads=2)
    assert len(problems) == 2
    assert "train/two: no picture with suffix" in problems[0]
    assert "trainannot/two.png: No such file" in problems[1]
    (tmp_path / "train.txt").write_text("one\none\n")
    with pytest.raises(DataError, match="image id one occurs 2 times"):
        open_truth(data, "pool")
    (tmp_path / "train.txt").write_text("")
    with pytest.raises(DataError, match="lists no image"):
        open_truth(data, "pool")


# --- check


def test_check_reports_sizes_and_every_problem(tmp_path: Path) -> None:
    index = coco_index()
    index["images"][0]["width"] = 61
    index["images"].append({"id": 3, "file_name": "c.png", "height": 40, "width": 60})
    dataset = open_truth(write_coco(tmp_path, index), "pool")
    seen: list[None] = []
    infos, problems = check(dataset, lambda: seen.append(None), threads=2)
    assert [(info.image_id, info.height, info.width) for info in infos] == [("a", 40, 60), ("b", 40, 60)]
    assert len(seen) == 3
    assert problems[0].startswith("b: image of 40 x 60 but truth of 40 x 61 px")
    assert "c.png: No such file" in problems[1]
    assert len(problems) == 2


# --- real data


@needs_real_data
@pytest.mark.parametrize(("split", "polygons", "vertices"), [("pool", 12_112, 139_018), ("eval", 2_059, 23_075)])
def test_facades_hold_the_clicks_their_readme_states(split: Any, polygons: int, vertices: int) -> None:
    data = CocoData(format="coco", root=REAL / "facades")
    index = json.loads((data.root / f"{'train' if split == 'pool' else 'val'}.json").read_text())
    dataset = open_truth(data.model_copy(update={"scale": 0.1}), split)
    assert len(index["annotations"]) == polygons
    assert sum(len(dataset.truth(image_id).clicks) for image_id in dataset.image_ids) == vertices


@needs_real_data
def test_real_images_pass_the_check() -> None:
    facades = open_truth(CocoData(format="coco", root=REAL / "facades", scale=0.5), "eval")
    infos, problems = check(facades, None, threads=2)
    assert not problems
    assert {(info.height, info.width) for info in infos} == {(256, 256)}


@needs_real_data
def test_camvid_masks_are_indices_and_their_clicks_plausible() -> None:
    data = MasksData(format="masks", root=REAL / "camvid", class_names=CAMVID)
    dataset = open_truth(data, "pool")
    truths = [dataset.truth(image_id) for image_id in list(dataset.image_ids)[::40]]
    shares = (
        np.bincount(np.concatenate([truth.labels.ravel() for truth in truths]), minlength=256) / truths[0].labels.size
    )
    assert len(dataset.image_ids) == 367
    assert np.flatnonzero(shares).tolist() == [*range(11), VOID]
    assert all(100 < truth.clicks[:, 2].sum() < 2000 for truth in truths)
