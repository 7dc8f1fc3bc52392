"""Where the checkout is, and the real images beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
SHARED_DATA = ROOT.parent / "shared" / "data"
GOLDEN = ROOT / "tests" / "golden"
SEARCH = f"{ROOT}:{ROOT / 'tests' / 'helpers'}"
"""PYTHONPATH of a process that uses helpers."""
