"""Data that changed since a campaign was started, splits that hold nothing, and images that are in both."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from command_line import cereals
from small_campaign import small_settings

from cereals_core.data_settings import CityscapesData, CocoData, Data, MasksData, SyntheticData
from cereals_core.datasets.cityscapes import write_cityscapes_layout
from cereals_core.errors import DataError
from cereals_core.settings import CampaignSettings
from tasks.pages.wording import in_both
from tasks.pool import check_pool, refuse_changed
from tasks.running.opening import open_campaign
from tasks.store.layout import Campaign
from tasks.store.products import Product

STREETS = SyntheticData(format="synthetic", pool_images=3, eval_images=2, height=48, width=64)


def cityscapes(root: Path) -> CityscapesData:
    write_cityscapes_layout(STREETS, root)
    return CityscapesData(format="cityscapes", root=root)


def coco(root: Path, annotations: bool = True, background: str = "background") -> CocoData:
    (root / "images").mkdir(parents=True)
    categories = [{"id": 1, "name": "door"}, {"id": 2, "name": "window"}]
    for split in ("train", "val"):
        entries = [{"id": n, "file_name": f"{split}{n}.png", "height": 40, "width": 48} for n in range(2)]
        for entry in entries:
            grey = np.full((40, 48, 3), 30 * int(entry["id"]) + len(split), np.uint8)
            cv2.imwrite(str(root / "images" / str(entry["file_name"])), grey)
        ring = [4, 4, 30, 4, 30, 30, 4, 30]
        drawn = [{"id": n, "image_id": n, "category_id": 1, "segmentation": [ring]} for n in range(2)]
        index = {"categories": categories, "images": entries, "annotations": drawn if annotations else []}
        (root / f"{split}.json").write_text(json.dumps(index))
    return CocoData(format="coco", root=root, background=background)


def masks(root: Path, value: int = 1) -> MasksData:
    for split in ("train", "val"):
        for folder in (root / split, root / f"{split}annot"):
            folder.mkdir(parents=True)
        (root / f"{split}.txt").write_text("a\nb\n")
        for stem, grey in (("a", 30), ("b", 60)):
            cv2.imwrite(str(root / split / f"{stem}.png"), np.full((40, 48, 3), grey + len(split), np.uint8))
            cv2.imwrite(str(root / f"{split}annot" / f"{stem}.png"), np.full((40, 48), value, np.uint8))
    return MasksData(format="masks", root=root, class_names=("a", "b"))


def with_data(folder: Path, data: Data) -> CampaignSettings:
    return small_settings(folder).model_copy(update={"data": data})


@pytest.fixture
def started(tmp_path: Path) -> tuple[Campaign, Product]:
    """A campaign on files, whose pool was listed."""
    campaign = open_campaign(with_data(tmp_path / "campaign", cityscapes(tmp_path / "city")))
    return campaign, check_pool(campaign)


def pictures(root: Path) -> list[Path]:
    return sorted(root.glob("leftImg8bit/train/*/*.png"))


def another_picture(root: Path) -> str:
    file = pictures(root)[0]
    file.write_bytes(pictures(root)[1].read_bytes())
    return f"{file}: has another content"


def another_of_the_same_size(root: Path) -> str:
    file = next(root.glob("gtFine/val/*/*labelIds.png"))
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    return f"{file}: has another content"


def missing(root: Path) -> str:
    file = next(root.glob("gtFine/train/*/*polygons.json"))
    file.unlink()
    return f"{file}: No such file or directory"


@pytest.mark.parametrize("change", [another_picture, another_of_the_same_size, missing])
def test_what_changed_is_named(change: Callable[[Path], str], started: tuple[Campaign, Product]) -> None:
    campaign, pool = started
    assert campaign.settings.data.root is not None
    said = change(campaign.settings.data.root)
    with pytest.raises(DataError, match="1 file of the data set changed since the campaign was started") as told:
        refuse_changed(campaign, pool)
    assert said in str(told.value)


def test_files_that_were_copied_elsewhere_or_touched_are_the_same(
    started: tuple[Campaign, Product], tmp_path: Path
) -> None:
    campaign, pool = started
    refuse_changed(campaign, pool)
    root = shutil.copytree(tmp_path / "city", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    shutil.rmtree(tmp_path / "city")
    moved = campaign.settings.data.model_copy(update={"root": root})
    elsewhere = Campaign(campaign.folder, campaign.settings.model_copy(update={"data": moved}))
    refuse_changed(elsewhere, pool)
    said = another_of_the_same_size(root)  # its content is what was looked at
    with pytest.raises(DataError) as told:
        refuse_changed(elsewhere, pool)
    assert said in str(told.value)


def test_annotations_that_were_added_are_a_change(tmp_path: Path) -> None:
    data = coco(tmp_path / "doors")
    campaign = open_campaign(with_data(tmp_path / "campaign", data))
    pool = check_pool(campaign)
    refuse_changed(campaign, pool)
    index = data.root / "val.json"
    index.write_text(index.read_text().replace("30", "31"))
    with pytest.raises(DataError, match=r"val\.json: has another content"):
        refuse_changed(campaign, pool)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: coco(root, annotations=False), "no image has a click, a vertex of a polygon"),
        (lambda root: coco(root, annotations=False, background=""), "no image has a labelled pixel: all is void"),
        (lambda root: masks(root, value=9), "no image has a labelled pixel: all is void"),
    ],
    ids=["no annotations", "all void", "unknown values"],
)
def test_splits_that_hold_nothing_are_refused(make: Callable[[Path], Data], said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 problems in the data") as told:
        check_pool(open_campaign(with_data(tmp_path / "campaign", make(tmp_path / "data"))))
    for split in ("pool", "eval"):
        assert f"{split}: {said}" in str(told.value)


def test_images_in_both_splits_are_counted_by_their_content(tmp_path: Path) -> None:
    data = masks(tmp_path / "data")
    shutil.copy(data.root / "train" / "a.png", data.root / "val" / "b.png")
    pool = check_pool(open_campaign(with_data(tmp_path / "campaign", data)))
    assert pool.facts["in_both"] == 1
    assert pool.facts["note"] == "2 images to ask of, 2 to evaluate on, 1 image in both"
    assert in_both(1) == "1 image for evaluation is in the pool too: the mIoU tells too much."
    file = tmp_path / "made.toml"
    file.write_text(f'name = "made"\n[data]\nformat = "masks"\nroot = "{data.root}"\nclass_names = ["a", "b"]\n')
    assert in_both(1) in cereals("data", "check", file).stdout
