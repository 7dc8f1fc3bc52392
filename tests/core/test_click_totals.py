"""Clicks of whole data sets: by hand, against naive twins, on every format, and on the real facades."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import cv2
import naive
import numpy as np
import pytest
from checkout import ROOT, SHARED_DATA
from hypothesis import given
from hypothesis import strategies as st
from naive import naive_components, naive_crossings
from small_campaign import small_settings
from strategies import FEW
from typer.testing import CliRunner

from cereals_core.clicks import RegionCost, region_cost
from cereals_core.data_settings import CityscapesData, CocoData, Data, MasksData, SyntheticData
from cereals_core.datasets import open_truth
from cereals_core.datasets.base import Dataset
from cereals_core.datasets.cityscapes import write_cityscapes_layout
from cereals_core.datasets.click_totals import ClickTotals, count_clicks, grid_regions, quantiles
from cereals_core.errors import SettingsError
from cereals_core.grid import Box
from cereals_core.truth import Truth
from deployments.cli import app
from deployments.click_totals import show_clicks
from tasks.pages.wording import clicks

STREETS = SyntheticData(format="synthetic", seed=5, pool_images=2, eval_images=1, height=48, width=72)
FORMATS = ("coco", "masks", "cityscapes", "synthetic")
needs_real_data = pytest.mark.skipif(not SHARED_DATA.exists(), reason=f"needs the real images in {SHARED_DATA}")


@dataclass(frozen=True)
class Truths:
    """A data set of truths without pictures."""

    truths: dict[str, Truth]
    class_names: tuple[str, ...] = ("ground", "thing")

    @property
    def image_ids(self) -> list[str]:
        return sorted(self.truths)

    def image(self, image_id: str) -> np.ndarray:
        raise AssertionError("clicks are counted without pictures")

    def truth(self, image_id: str) -> Truth:
        return self.truths[image_id]


def square() -> Truth:
    """A square of 8 x 8 px in 40 x 56, whose four corners were clicked."""
    labels = np.zeros((40, 56), np.uint8)
    labels[8:16, 16:24] = 1
    corners = [(8, 16, 1), (8, 24, 1), (16, 24, 1), (16, 16, 1)]
    return Truth(labels, np.array(corners, np.float32))


def empty() -> Truth:
    return Truth(np.zeros((40, 56), np.uint8), np.empty((0, 3), np.float32))


def counted(dataset: Dataset, window_px: int | None = None, full_size: Dataset | None = None) -> ClickTotals:
    seen: list[None] = []
    totals = count_clicks(dataset, full_size, window_px, lambda: seen.append(None), threads=2)
    assert len(seen) == totals.images == len(dataset.image_ids)
    return totals


def test_two_images_by_hand() -> None:
    dataset = Truths({"a": square(), "b": empty()})
    totals = counted(dataset, 24, dataset)
    # The square touches no border; its components are itself and the ground around, and the ground of the other image.
    assert (totals.vertices, totals.crossings, totals.components) == (4, 0, 3)
    # Windows of 24 px: two side by side in each image; the corners at x = 24 count in the right one.
    assert totals.regions == Counter({0.0: 2, 2.0: 2})
    # Each image's own corners, four clicks, and the square's: seen from inside 4, from outside 4 to 8, weighing half.
    assert 8 + 4 <= totals.traced <= 8 + 6
    assert len(totals.traced_shares) == 1
    assert totals.traced_shares[0] == (totals.traced - 4) / 4


def test_tracing_looks_at_the_full_size_alone() -> None:
    constant = Truth(np.zeros((80, 112), np.uint8), np.empty((0, 3), np.float32))
    totals = counted(Truths({"a": square()}), None, Truths({"a": constant}))
    assert (totals.traced, totals.traced_shares) == (4, [1])  # the corners of the image


def test_without_windows_and_tracing_neither_is_counted() -> None:
    totals = counted(Truths({"a": square()}))
    assert (totals.regions, totals.traced, totals.traced_shares) == (Counter(), 0, [])


@given(st.integers(1, 50), st.integers(1, 50), st.integers(1, 20))
def test_grid_regions_are_all_multiples_that_fit(height: int, width: int, window_px: int) -> None:
    found = [(box.y, box.x) for box in grid_regions(height, width, window_px)]
    expected = [
        (y, x)
        for y in range(height)
        for x in range(width)
        if not (y % window_px or x % window_px or y + window_px > height or x + window_px > width)
    ]
    assert found == expected


@given(st.lists(st.integers(0, 12).map(float), min_size=1, max_size=40), st.sampled_from([0.05, 0.25, 0.5, 0.75, 0.95]))
def test_quantiles_are_those_of_the_sorted_list(values: list[float], share: float) -> None:
    expected = next(v for v in sorted(values) if sum(other <= v for other in values) >= share * len(values) - 1e-9)
    assert quantiles(Counter(values), [share]) == [expected]


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Dataset]:
    """The same kind of small scene in every format, scaled where that is possible."""
    root = tmp_path_factory.mktemp("formats")
    write_cityscapes_layout(STREETS, root / "cityscapes", lambda: None)
    drawn = open_truth(STREETS, "pool")
    first = drawn.image_ids[0]
    for folder in ("coco/images", "masks/train", "masks/trainannot"):
        (root / folder).mkdir(parents=True)
    cv2.imwrite(str(root / "masks/train/a.png"), drawn.image(first))
    cv2.imwrite(str(root / "masks/trainannot/a.png"), drawn.truth(first).labels)
    (root / "masks/train.txt").write_text("a\n")
    cv2.imwrite(str(root / "coco/images/a.png"), drawn.image(first))
    ring = [3.0, 5.0, 40.5, 9.0, 33.0, 47.0]
    index = {
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 72}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 2, "segmentation": [ring, [70, 1, 72, 1, 72, 48]]}],
    }
    (root / "coco/train.json").write_text(json.dumps(index))
    data: dict[str, Data] = {
        "coco": CocoData(format="coco", root=root / "coco", scale=0.9),
        "masks": MasksData(format="masks", root=root / "masks", class_names=drawn.class_names, scale=0.9),
        "cityscapes": CityscapesData(format="cityscapes", root=root / "cityscapes", scale=0.9),
        "synthetic": STREETS,
    }
    return {name: open_truth(each, "pool") for name, each in data.items()}


@pytest.mark.parametrize("name", FORMATS)
@FEW
@given(data=st.data())
def test_any_rectangle_of_any_format_costs_what_the_naive_twins_say(
    datasets: dict[str, Dataset], name: str, data: st.DataObject
) -> None:
    dataset = datasets[name]
    truth = dataset.truth(dataset.image_ids[0])
    height, width = truth.labels.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y, x, data.draw(st.integers(1, height - y)), data.draw(st.integers(1, width - x)))
    labels = truth.labels[box.slices].tolist()
    vertices = naive.region_vertices(truth.clicks, (height, width), box)
    assert region_cost(truth, box) == RegionCost(vertices, naive_crossings(labels), naive_components(labels))


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_image_holds_all_its_clicks(datasets: dict[str, Dataset], name: str) -> None:
    dataset = datasets[name]
    truth = dataset.truth(dataset.image_ids[0])
    assert truth.clicks[:, 2].sum() > 0
    assert region_cost(truth, Box(0, 0, *truth.labels.shape)).vertices == truth.clicks[:, 2].sum()


def test_masks_are_calibrated_by_clicks_per_vertex(tmp_path: Path) -> None:
    for folder in ("train", "trainannot"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "train/a.png"), np.zeros((40, 56, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "trainannot/a.png"), square().labels)
    (tmp_path / "train.txt").write_text("a\n")
    data = MasksData(format="masks", root=tmp_path, class_names=("ground", "thing"))
    plain, weighed = (
        open_truth(data.model_copy(update={"clicks_per_vertex": factor}), "pool").truth("a") for factor in (1, 1.5)
    )
    np.testing.assert_array_equal(weighed.clicks, plain.clicks * [1, 1, 1.5])
    np.testing.assert_array_equal(weighed.labels, plain.labels)


def test_what_the_command_says_of_a_split(tmp_path: Path) -> None:
    settings = small_settings(tmp_path)
    dataset = open_truth(settings.data, "pool")
    totals = counted(dataset, 24, dataset)
    pool, evaluation = show_clicks(settings, 24, traced=True)
    lines = pool.splitlines()
    assert lines[0] == "pool: 10 images"
    assert lines[2].split() == ["vertices", "(c_p)", f"{totals.vertices:,.0f}", f"{totals.vertices / 10:,.1f}"]
    assert lines[4].split()[-2] == f"{totals.vertices + totals.crossings + totals.components:,.0f}"
    assert lines[5].split()[-2] == f"{totals.components:,}"
    assert lines[6].startswith("  vertices of a region of 24 px: mean ")
    assert lines[6].endswith(" of 80")
    assert f"{totals.traced / totals.vertices:.3f} of the polygons'" in lines[7]
    assert "of an image: median " in lines[8]
    assert evaluation.startswith("eval: 3 images\n")
    assert len("\n".join(show_clicks(settings, None, traced=False)).splitlines()) == 12
    assert "none fits into an image" in next(show_clicks(settings, 512, traced=False))


def test_the_command_traces_at_full_size_whatever_the_scale(tmp_path: Path) -> None:
    write_cityscapes_layout(STREETS, tmp_path / "city", lambda: None)
    full = CityscapesData(format="cityscapes", root=tmp_path / "city")
    dataset = open_truth(full, "pool")
    traced = f"{clicks(counted(dataset, None, dataset).traced)}, "
    for scale in (1, 0.6):
        data = full.model_copy(update={"scale": scale})
        settings = small_settings(tmp_path).model_copy(update={"data": data})
        assert f"at full size: {traced}" in next(show_clicks(settings, None, traced=True))


def test_the_command_counts_what_a_campaign_file_names(tmp_path: Path) -> None:
    file = tmp_path / "streets.toml"
    file.write_text(
        'name = "streets"\n[data]\nformat = "synthetic"\npool_images = 2\neval_images = 1\nheight = 48\nwidth = 72\n'
    )
    result = CliRunner().invoke(app, ["data", "clicks", str(file), "--window", "24"])
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line.endswith("images")] == [
        "pool: 2 images",
        "eval: 1 images",
    ]


def test_masks_have_no_polygons_to_compare_with(tmp_path: Path) -> None:
    masks = MasksData(format="masks", root=tmp_path, class_names=("a", "b"))
    with pytest.raises(SettingsError, match=r'"masks" has no polygons.*leave out --traced'):
        next(show_clicks(small_settings(tmp_path).model_copy(update={"data": masks}), None, traced=True))


@needs_real_data
def test_facades_are_traced_as_the_data_readme_states() -> None:
    dataset = open_truth(CocoData(format="coco", root=SHARED_DATA / "facades"), "eval")
    totals = counted(dataset, None, dataset)
    assert totals.vertices == 23_075
    assert round(totals.traced / totals.vertices, 3) == 0.720
    assert "0.720" in (ROOT / "data" / "README.md").read_text()
