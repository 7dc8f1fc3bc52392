"""Importing torchvision, and libraries that import it, beside another build of torch than it was compiled for."""

import logging
import sys
from importlib import import_module
from typing import Any

import torch

from cereals_core.errors import CerealsError

OPERATORS = ("nms", "qnms")
"""Compiled operators that torchvision names when it is imported; no network here calls them."""
_declared: list[torch.library.Library] = []


class LibraryError(CerealsError, ImportError):
    """A library of networks that is missing, or does not fit the torch beside it."""


def import_beside(module: str, name: str) -> Any:
    """Import a module of `name`'s library, torchvision first; returns the module.

    torchvision from one index and torch from another do not fit: its import fails where it describes operators that its
    compiled part should have brought. Their schemas are declared then, without code, a warning says so once, and the
    import is tried again. LibraryError where that does not do either, or something is not installed.
    """
    try:
        _import_torchvision()
        return import_module(module)
    except (ImportError, RuntimeError) as error:
        raise LibraryError(
            f'model.name = "{name}" needs {module.partition(".")[0]}, which cannot be imported here ({error}); install '
            'cereals with its networks, `pip install -e ".[models]"`, with torch and torchvision as builds of one '
            'index that belong together, or take "fcn8s"'
        ) from error


def _import_torchvision() -> None:
    try:
        import_module("torchvision")
    except RuntimeError as error:
        if _declared or "operator torchvision::" not in str(error):
            raise
        for half_done in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
            del sys.modules[half_done]
        _declared.append(torch.library.Library("torchvision", "DEF"))  # it has effect as long as it lives
        for operator in OPERATORS:
            _declared[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import_module("torchvision")
        logging.getLogger(__name__).warning(
            "torchvision was built for another torch than %s: its compiled operators (%s) are declared without code; "
            "no network of cereals calls them",
            torch.__version__,
            ", ".join(OPERATORS),
        )
