"""Annotated shapes are checked in the tests, and cost nothing elsewhere."""

import subprocess
import sys

import numpy as np
import pytest
from jaxtyping import TypeCheckError

from cereals_core.clicks import click_map
from cereals_core.evaluation import confusion
from cereals_core.truth import Truth


def test_axes_of_one_name_are_equally_long() -> None:
    truth = np.zeros((2, 3), np.uint8)
    assert confusion(truth, truth, 1).tolist() == [[6]]
    with pytest.raises(TypeCheckError, match=r"prediction(.|\n)*\bw=3"):
        confusion(truth, np.zeros((2, 4), np.uint8), 1)


@pytest.mark.parametrize("clicks", [np.zeros(3, np.float32), np.zeros((1, 2), np.float32), np.zeros((1, 3))])
def test_clicks_of_another_shape_or_dtype_are_refused(clicks: np.ndarray) -> None:
    with pytest.raises(TypeCheckError, match="Float32"):
        click_map(clicks, (8, 8))
    with pytest.raises(TypeCheckError, match="Float32"):
        Truth(np.zeros((8, 8), np.uint8), clicks)

    assert hasattr(click_map, "__wrapped__")


def test_elsewhere_nothing_is_loaded_to_check_with() -> None:
    code = """
import sys
from cereals_core.grid import labels_at_stride
print({"jaxtyping", "beartype"} & sys.modules.keys(), hasattr(labels_at_stride, "__wrapped__"))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set() False\n"
