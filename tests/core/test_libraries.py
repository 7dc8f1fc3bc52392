import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cereals_core.errors import CerealsError
from cereals_core.models.beside import LibraryError, import_beside
from cereals_core.models.build import build_network
from cereals_core.models.fcn8s import FCN8s
from cereals_core.network_settings import Model

FCN, LITE, CLASSES = "fcn_resnet50", "timm:tf_efficientnet_lite0", 3


def hide_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, module)


def assert_refused(message: str) -> None:
    with pytest.raises(LibraryError) as caught:
        build_network(Model(name=FCN), CLASSES)
    assert isinstance(caught.value, CerealsError)
    assert isinstance(caught.value, ImportError)
    for part in (f'model.name = "{FCN}"', message, "with torch and torchvision as builds of one index"):
        assert part in str(caught.value)


def test_builds_that_do_not_fit_are_an_error_with_its_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "torchvision.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")')
    hide_torchvision(monkeypatch)
    monkeypatch.syspath_prepend(tmp_path)
    assert_refused("operator torchvision::nms does not exist")


def test_without_torchvision_it_is_the_same_error_and_fcn8s_works(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: Any = None
    hide_torchvision(monkeypatch)
    monkeypatch.setitem(sys.modules, "torchvision", blocked)
    assert_refused("import of torchvision halted")
    assert isinstance(build_network(Model(width=0.02), CLASSES), FCN8s)


def test_a_library_that_is_missing_is_said_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked: Any = None
    monkeypatch.setitem(sys.modules, "timm", blocked)
    with pytest.raises(
        LibraryError, match=r'needs timm, which cannot be imported here .*`pip install -e "\.\[models\]"'
    ):
        import_beside("timm", LITE)


def test_torchvision_of_another_torch_is_imported_and_said_once(tmp_path: Path) -> None:
    """In a process of its own, with a torchvision that describes an operator it did not bring."""
    fake = tmp_path / "torchvision"
    fake.mkdir()
    (fake / "__init__.py").write_text("import torch\nfrom torchvision import described\nready = True\n")
    (fake / "described.py").write_text(
        "import torch\ntorch.library.register_fake('torchvision::nms')(lambda dets, scores, iou_threshold: dets)\n"
    )
    program = (
        "import warnings\nwarnings.simplefilter('always')\n"
        "from cereals_core.models.beside import import_beside\n"
        "for _ in range(3): print(import_beside('torchvision', 'x').ready)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "PATH": "/usr/bin"},
    )
    assert done.stdout.split() == ["True"] * 3
    assert done.stderr.count("was built for another torch") == 1
