import json
from pathlib import Path

import numpy as np
import pytest

from cereals_core.errors import DataError
from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings
from cereals_core.truth import Truth
from tasks import examination, pool
from tasks.pool import check_pool, workload_of
from tasks.running.opening import open_campaign
from tasks.running.work import Work
from tasks.store import tables
from tasks.store.layout import Campaign
from tasks.store.pool import open_pool
from tasks.store.products import Product


def changed(settings: CampaignSettings, section: str, **values: object) -> CampaignSettings:
    raw = settings.model_dump(mode="json")
    return parse_settings({**raw, section: {**raw[section], **values}}, "changed")


class TwoSizes:
    """Three images of two sizes; the truth of "c" has `truth_width`, and "b" cannot be read if it is broken."""

    class_names = ("road", "car")
    image_ids = ("a", "b", "c")
    index_files = ()

    def __init__(self, broken: bool) -> None:
        self.broken = broken

    def image(self, image_id: str) -> np.ndarray:
        if self.broken and image_id == "b":
            raise DataError("b.png: not an image; replace it")
        return np.zeros((24, 40, 3) if image_id == "b" else (32, 40, 3), np.uint8)

    def files(self, image_id: str) -> list[Path]:
        return []

    def truth(self, image_id: str) -> Truth:
        height, width = self.image(image_id).shape[:2]
        return Truth(
            np.zeros((height, width + (self.broken and image_id == "c")), np.uint8), np.ones((1, 3), np.float32)
        )


def checked(campaign: Campaign, monkeypatch: pytest.MonkeyPatch, broken: bool) -> Work:
    for module in (examination, pool):
        monkeypatch.setattr(module, "open_truth", lambda data, split: TwoSizes(broken))
    work = Work("pool", campaign, None, campaign.stage("pool", None), {})
    work.folder.mkdir(parents=True)
    check_pool.body(work)
    return work


def product_of(work: Work) -> Product:
    return Product(work.folder, "digest", "fingerprint", "pool", elapsed_s=0, total_bytes=0, facts=work.facts)


def test_the_pool_lists_images_by_size(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    work = checked(open_campaign(small), monkeypatch, broken=False)
    assert tables.POOL.read(work.folder).to_pydict() == {
        "image_id": ["a", "b", "c"],
        "height": [32, 24, 32],
        "width": [40, 40, 40],
        "group": ["32x40", "24x40", "32x40"],
        "row": [0, 0, 1],
    }
    told = {"images": 3, "pixels": 3520, "eval_images": 3, "class_names": ["road", "car"], "in_both": 0}
    assert work.facts == told | {"units": 6, "units_s": work.facts["units_s"]}
    assert json.loads(json.dumps(work.facts)) == work.facts
    pool = open_pool(work.campaign, product_of(work))
    assert pool.shard_images == small.compute.shard_images
    assert [[image.image_id for image in shard.images] for shard in pool.shards()] == [["a", "c"], ["b"]]
    load = workload_of(work.campaign, product_of(work))
    assert (load.images, load.pixels, load.eval_images, load.classes) == (3, 3520, 3, 2)


def test_all_problems_of_both_splits_are_listed(small: CampaignSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError) as got:
        checked(open_campaign(small), monkeypatch, broken=True)
    first, *problems = str(got.value).splitlines()
    assert first == f"{len(problems)} problems in the data; correct them and run again"
    assert problems[: len(problems) // 2] == problems[len(problems) // 2 :]
    assert "b.png: not an image; replace it" in problems
    assert any(problem.startswith("c: image of 32 x 40 but truth of 32 x 41 px") for problem in problems)
