import naive
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from strategies import image_sizes, images_with_boxes, label_maps

from cereals_core.grid import Box, candidate_shape, labels_at_stride, map_shape


def test_a_box_knows_its_pixels_and_cells() -> None:
    box = Box(8, 16, 16, 24)
    assert box.slices == (slice(8, 24), slice(16, 40))
    assert box.cell_slices == (slice(1, 3), slice(2, 5))
    assert box.pixels == 384


def test_a_box_that_ends_at_the_images_edge_holds_the_partial_cell() -> None:
    assert Box(8, 0, 9, 17).cell_slices == (slice(1, 3), slice(0, 3))


def test_a_map_has_a_cell_for_each_block_begun() -> None:
    assert map_shape(1024, 2048) == (128, 256)
    assert map_shape(17, 8) == (3, 1)


def test_windows_of_128_px_in_a_street_scene() -> None:
    assert candidate_shape(1024, 2048, 128) == (113, 241)
    assert candidate_shape(135, 128, 128) == (1, 1)
    assert candidate_shape(127, 2048, 128) == (0, 0)


def test_a_cells_label_is_that_of_its_centre() -> None:
    labels = np.arange(10 * 18, dtype=np.uint8).reshape(10, 18)
    assert labels_at_stride(labels).tolist() == [[76, 84, 89], [166, 174, 179]]


@given(label_maps(5, image_sizes))
def test_labels_at_stride_equal_the_loop(labels: np.ndarray) -> None:
    fast = labels_at_stride(labels)
    assert fast.shape == map_shape(*labels.shape)
    np.testing.assert_array_equal(fast, naive.labels_at_stride(labels))


@given(image_sizes, st.integers(1, 9))
def test_candidates_are_the_windows_wholly_inside(size: tuple[int, int], cells: int) -> None:
    window_px = 8 * cells
    inside = [
        (y, x)
        for y in range(0, size[0], 8)
        for x in range(0, size[1], 8)
        if y + window_px <= size[0] and x + window_px <= size[1]
    ]
    rows, columns = candidate_shape(*size, window_px)
    assert [(8 * y, 8 * x) for y in range(rows) for x in range(columns)] == inside


@given(images_with_boxes())
def test_cells_of_a_box_are_the_cells_of_its_pixels(image: tuple[int, int, list[Box]]) -> None:
    height, width, boxes = image
    for box in boxes:
        pixels = np.zeros((height, width), bool)
        pixels[box.slices] = True
        cells = np.zeros(map_shape(height, width), bool)
        cells[box.cell_slices] = True
        assert box.pixels == pixels.sum()
        assert cells.repeat(8, 0).repeat(8, 1)[:height, :width].tolist() == pixels.tolist()
