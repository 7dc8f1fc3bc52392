import copy
import itertools
from typing import Literal

import naive
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cereals_core.cropping import Crop, crops
from cereals_core.grid import STRIDE_PX, VOID, Box, map_shape
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Training
from cereals_core.seeding import rng
from cereals_core.training import Loss, Sample, Trainer, cost_loss, segmentation_loss

pytestmark = pytest.mark.usefixtures("one_thread")

CONTEXT_PX, GRID_PX = FCN8s.context_px, FCN8s.crop_grid_px
LOSSES = pytest.mark.parametrize("loss", [segmentation_loss, cost_loss])
Method = Literal["masking", "cropping"]


def cells_of(height: int, width: int, *regions: Box) -> np.ndarray:
    cells = np.zeros(map_shape(height, width), dtype=bool)
    for region in regions:
        cells[region.cell_slices] = True
    return cells


def boxes(height: int, width: int, *regions: Box) -> list[Box]:
    found = crops(cells_of(height, width, *regions), height, width, CONTEXT_PX, GRID_PX)
    return [crop.box for crop in found]


def test_one_cell_in_the_middle_of_a_large_image() -> None:
    """Pixels 512 to 520 by 1024 to 1032; with 216 px around them 296 to 736 by 808 to 1248; then out to the grid."""
    labelled = cells_of(1024, 2048, Box(512, 1024, 8, 8))
    (crop,) = crops(labelled, 1024, 2048, 216, 32)
    assert crop.box == Box(288, 800, 736 - 288, 1248 - 800)
    assert crop.share == 1
    assert np.argwhere(crop.cells).tolist() == [[(512 - 288) // 8, (1024 - 800) // 8]]
    assert crop.cells.shape == (448 // 8, 448 // 8)


def test_the_images_edge_cuts_a_crop() -> None:
    assert boxes(1000, 2045, Box(0, 0, 64, 64)) == [Box(0, 0, 288, 288)]
    assert boxes(1000, 2045, Box(936, 1984, 64, 61)) == [Box(704, 1760, 296, 285)]


def test_regions_far_apart_get_a_crop_each_with_their_share_of_the_cells() -> None:
    labelled = cells_of(1024, 2048, Box(0, 1984, 64, 64), Box(960, 0, 64, 128))
    first, second = crops(labelled, 1024, 2048, CONTEXT_PX, GRID_PX)
    assert (first.box, second.box) == (Box(0, 1760, 288, 288), Box(736, 0, 288, 352))
    assert (first.share, second.share) == (64 / 192, 128 / 192)


def test_regions_become_one_crop_where_that_adds_no_pixels() -> None:
    """The left region's crop ends at 288; the other's begins there or, if it is one cell further right, at 320."""
    left = Box(0, 0, 64, 64)
    assert boxes(1024, 2048, left, Box(0, 528, 64, 64)) == [Box(0, 0, 288, 832)]
    assert boxes(1024, 2048, left, Box(0, 536, 64, 64)) == [Box(0, 0, 288, 288), Box(0, 320, 288, 512)]


def test_cells_that_touch_at_a_corner_are_one_group() -> None:
    (crop,) = crops(np.eye(2, 4, dtype=bool), 16, 32, 0, 8)
    assert crop.box == Box(0, 0, 16, 16)


def test_the_whole_image_is_the_crop_where_crops_together_are_not_smaller() -> None:
    """Bars at the top, bottom and left of 640 x 640 px: crops of 256 x 640, 256 x 640 and 640 x 224, no two of which
    have a bounding box as small as both."""
    bars = Box(0, 0, 40, 640), Box(600, 0, 40, 640), Box(48, 0, 544, 8)
    assert boxes(640, 640, *bars[:2]) == [Box(0, 0, 256, 640), Box(384, 0, 256, 640)]
    assert boxes(640, 640, bars[2]) == [Box(0, 0, 640, 224)]
    labelled = cells_of(640, 640, *bars)
    (crop,) = crops(labelled, 640, 640, CONTEXT_PX, GRID_PX)
    assert (crop.box, crop.share) == (Box(0, 0, 640, 640), 1)
    np.testing.assert_array_equal(crop.cells, labelled)


@pytest.mark.parametrize("regions", [[], [Box(0, 0, 1024, 2048)]])
def test_nothing_labelled_and_everything_labelled_are_the_whole_image(regions: list[Box]) -> None:
    assert boxes(1024, 2048, *regions) == [Box(0, 0, 1024, 2048)]


def test_without_a_finite_context_the_whole_image_is_the_crop() -> None:
    (crop,) = crops(cells_of(1024, 2048, Box(0, 0, 8, 8)), 1024, 2048, None, GRID_PX)
    assert (crop.box, crop.share) == (Box(0, 0, 1024, 2048), 1)


def test_a_crop_as_an_index_at_any_stride() -> None:
    crop = Crop(Box(64, 32, 45, 96), np.ones((6, 12), bool), 1.0)
    assert crop.slices_at(1) == crop.box.slices == (slice(64, 109), slice(32, 128))
    assert crop.slices_at(STRIDE_PX) == crop.box.cell_slices
    assert crop.slices_at(32) == (slice(2, 4), slice(1, 4))


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, int, int, int, int]:
    """What `crops` is asked: labelled cells, height, width, context and grid, small against the image or not."""
    rows, columns = draw(st.integers(1, 50)), draw(st.integers(1, 50))
    labelled = np.zeros((rows, columns), dtype=bool)
    for _ in range(draw(st.integers(0, 5))):
        y, x = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
        labelled[y : y + draw(st.integers(1, 6)), x : x + draw(st.integers(1, 6))] ^= True
    height, width = (STRIDE_PX * cells - draw(st.integers(0, STRIDE_PX - 1)) for cells in labelled.shape)
    return labelled, height, width, draw(st.integers(0, 60)), draw(st.sampled_from([8, 16, 32]))


@given(problems())
def test_crops_equal_the_loops(problem: tuple[np.ndarray, int, int, int, int]) -> None:
    slow = naive.crops(*problem)
    found = crops(*problem)
    assert [crop.box for crop in found] == [box for box, _ in slow]
    for crop, (box, cells) in zip(found, slow, strict=True):
        offset = np.array(box[:2]) // STRIDE_PX
        assert {(int(y), int(x)) for y, x in np.argwhere(crop.cells) + offset} == cells


@given(problems())
def test_crops_partition_the_labelled_cells_and_hold_their_context(
    problem: tuple[np.ndarray, int, int, int, int],
) -> None:
    labelled, height, width, context_px, grid_px = problem
    found = crops(*problem)
    times_counted = np.zeros(labelled.shape, dtype=int)
    for crop in found:
        times_counted[crop.box.cell_slices] += crop.cells
        for axis, size in enumerate((height, width)):
            start, end = crop.box[axis], crop.box[axis] + crop.box[axis + 2]
            assert 0 <= start < end <= size
            assert start % grid_px == 0
            assert end % grid_px == 0 or end == size
            for cell in crop.cells.nonzero()[axis]:
                assert start == 0 or cell * STRIDE_PX >= context_px
                assert end == size or end - start - (cell + 1) * STRIDE_PX >= context_px
    np.testing.assert_array_equal(times_counted, labelled)
    if labelled.any():
        assert [crop.share for crop in found] == [crop.cells.sum() / labelled.sum() for crop in found]


@given(problems())
def test_crops_are_never_more_work_than_the_image_or_than_fewer_crops(
    problem: tuple[np.ndarray, int, int, int, int],
) -> None:
    found = [crop.box for crop in crops(*problem)]
    _, height, width, _, _ = problem
    assert found == sorted(found)
    assert len(found) == 1 or sum(box.pixels for box in found) < height * width
    for first, second in itertools.combinations(found, 2):
        end_y, end_x = (max(a[i] + a[i + 2] for a in (first, second)) for i in range(2))
        union = (end_y - min(first.y, second.y)) * (end_x - min(first.x, second.x))
        assert union > first.pixels + second.pixels


def model_of(outputs: int, dtype: torch.dtype = torch.float64) -> FCN8s:
    model = FCN8s(outputs, 0.02)
    model.initialise(torch.Generator().manual_seed(0))
    return model.to(dtype)


def noise(height: int, width: int) -> np.ndarray:
    return rng(0, "image", height, width).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(("start", "end"), [(160, 704), (0, 480), (288, 829)])
def test_outputs_of_a_crop_are_those_of_the_image_from_the_context_on_and_no_nearer(
    start: int, end: int, transposed: bool
) -> None:
    """In an image of 829 px, whose last block and cell are partial; weights are positive, so that every path counts."""
    model, image = model_of(1), torch.from_numpy(noise(829, 70)).permute(2, 0, 1)[None]

    def outputs(rows: slice) -> Tensor:
        part = image[..., rows, :]
        return model(part.mT).mT if transposed else model(part)

    with torch.inference_mode():
        for parameter in model.parameters():
            parameter.abs_()
        whole, crop = outputs(slice(None)), outputs(slice(start, end))
    beside = whole[..., start // STRIDE_PX : -(-end // STRIDE_PX), :]
    error = ((crop - beside).abs() / whole.abs().max()).amax(dim=(0, 1, 3))
    before = STRIDE_PX * np.arange(len(error)) if start else np.inf
    after = STRIDE_PX * np.arange(len(error))[::-1] if end < 829 else np.inf
    far = np.minimum(before, after) >= model.context_px
    assert error[far].max() < 1e-12
    assert error[~far].min() > 1e-12


def sample_of(loss: Loss, height: int, width: int, *regions: Box) -> Sample:
    """Noise with these regions labelled, of which a third is void."""
    stream, labelled = rng(0, "target"), cells_of(height, width, *regions)
    if loss is cost_loss:
        return noise(height, width), np.where(labelled, stream.random(labelled.shape, np.float32), np.float32(np.nan))
    labels = np.where(stream.random(labelled.shape) < 0.3, VOID, stream.integers(0, 3, labelled.shape, np.uint8))
    return noise(height, width), np.where(labelled, labels, np.uint8(VOID)).astype(np.uint8)


def trainer_of(method: Method, loss: Loss, dropout: float, dtype: torch.dtype, **keys: float) -> Trainer:
    model = model_of(1 if loss is cost_loss else 3, dtype)
    return Trainer(model, loss, Training(method=method, **keys), dropout, lambda epoch: rng(0, epoch))


def step(
    method: Method, sample: Sample, loss: Loss, dropout: float, dtype: torch.dtype
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one step."""
    trainer = trainer_of(method, loss, dropout, dtype)
    value = trainer.run_epoch([sample]).loss
    return value, {name: parameter.grad for name, parameter in trainer.model.named_parameters()}


def assert_same_step(sample: Sample, loss: Loss, dropout: float, dtype: torch.dtype, tolerance: float) -> None:
    """Tolerance is against the largest element of a parameter's gradient."""
    value, gradients = step("cropping", sample, loss, dropout, dtype)
    expected_value, expected = step("masking", sample, loss, dropout, dtype)
    assert value == pytest.approx(expected_value, rel=tolerance)
    for name, gradient in gradients.items():
        scale = expected[name].abs().max().item()
        assert scale > 0
        torch.testing.assert_close(gradient, expected[name], rtol=tolerance, atol=tolerance * scale)


WIDE, TALL = (93, 581), (581, 93)
PATTERNS = {
    "one": (WIDE, [Box(32, 264, 32, 40)], [Box(0, 32, 93, 512)]),
    "near": (TALL, [Box(0, 0, 40, 40), Box(72, 48, 40, 40)], [Box(0, 0, 352, 93)]),
    "far": (WIDE, [Box(0, 0, 40, 40), Box(56, 544, 37, 37)], [Box(0, 0, 93, 256), Box(0, 320, 93, 261)]),
    "corner": (TALL, [Box(544, 56, 37, 37)], [Box(320, 0, 261, 93)]),
    "whole": (WIDE, [Box(0, 0, *WIDE)], [Box(0, 0, *WIDE)]),
}
"""Image size, labelled regions and the crops they give."""


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@LOSSES
def test_cropping_has_the_gradients_of_masking(loss: Loss, dropout: float, pattern: str) -> None:
    size, regions, expected = PATTERNS[pattern]
    assert boxes(*size, *regions) == expected
    sample = sample_of(loss, *size, *regions)
    assert_same_step(sample, loss, dropout, torch.float64, 1e-12)
    assert_same_step(sample, loss, dropout, torch.float32, 1e-4)


@LOSSES
def test_cells_that_two_crops_hold_count_once(loss: Loss) -> None:
    """A bar at the top and one at the left: each crop holds labelled cells of the other."""
    bars = Box(0, 0, 8, 493), Box(16, 0, 485, 8)
    assert boxes(501, 493, *bars) == [Box(0, 0, 224, 493), Box(0, 0, 501, 224)]
    assert_same_step(sample_of(loss, 501, 493, *bars), loss, 0.5, torch.float64, 1e-12)


def two_samples(loss: Loss) -> list[Sample]:
    return [sample_of(loss, *WIDE, *PATTERNS[pattern][1]) for pattern in ("one", "far")]


@LOSSES
def test_epochs_by_cropping_have_the_losses_of_masking(loss: Loss) -> None:
    def losses(method: Method) -> list[float]:
        trainer = trainer_of(method, loss, 0.5, torch.float32, learning_rate=1e-3)
        return [trainer.run_epoch(two_samples(loss)).loss for _ in range(4)]

    cropped, masked = losses("cropping"), losses("masking")
    assert cropped == pytest.approx(masked, rel=1e-3)
    assert max(masked) - min(masked) > 0.02 * max(masked)


@pytest.mark.parametrize(("method", "computed"), [("masking", [(93, 581)]), ("cropping", [(93, 256), (93, 261)])])
@LOSSES
def test_a_step_computes_its_crops_alone(loss: Loss, method: Method, computed: list[tuple[int, int]]) -> None:
    trainer, seen = trainer_of(method, loss, 0.5, torch.float32), []
    trainer.model.get_submodule("blocks.0").register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-2:]))
    trainer.run_epoch([sample_of(loss, *WIDE, *PATTERNS["far"][1])])
    assert seen == computed


def test_training_by_cropping_goes_on_from_any_epoch_bit_for_bit() -> None:
    undisturbed, restored = (trainer_of("cropping", cost_loss, 0.5, torch.float32) for _ in range(2))
    undisturbed.run_epoch(two_samples(cost_loss))
    restored.restore(copy.deepcopy(undisturbed.state()))
    for trainer in (undisturbed, restored):
        trainer.run_epoch(two_samples(cost_loss))
    assert undisturbed.history == restored.history
    weights = [trainer.model.state_dict() for trainer in (undisturbed, restored)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
