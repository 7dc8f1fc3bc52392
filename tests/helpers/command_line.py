"""The command line in a process of its own, and a campaign file for it."""

import os
import subprocess
import sys
from pathlib import Path

CEREALS = Path(sys.executable).with_name("cereals")


CAMPAIGN = """
name = "streets"
seed = 3
folder = "{folder}"
[data]
format = "synthetic"
pool_images = 6
eval_images = 2
height = 48
width = 64
[model]
width = 0.03
[training]
max_steps = {max_steps}
[acquisition]
seed_images = 2
images_per_round = 1
window_px = 16
information = "{information}"
[stop]
rounds = 1
[compute]
threads = 1
"""


def cereals(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a pipe."""
    command = [CEREALS, *map(str, arguments)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=240, check=False
    )


def campaign_file(folder: Path, name: str = "streets", max_steps: int = 6, information: str = "entropy") -> Path:
    """Write a small campaign file."""
    file = folder / f"{name}.toml"
    file.write_text(CAMPAIGN.format(folder=folder / name, max_steps=max_steps, information=information))
    return file
