"""What tells that two campaigns are the same: the digests of their products."""

import json
from collections.abc import Iterator
from typing import Any

from cereals_core.settings import CampaignSettings
from tasks.store.products import MANIFEST
from tasks.store.storage import sizes_below


def manifests(settings: CampaignSettings) -> Iterator[tuple[str, dict[str, Any]]]:
    """Folder below the campaign's, and manifest, of every product."""
    for name in sorted(sizes_below(settings.path)):
        if name.endswith(f"/{MANIFEST}"):
            yield name.removesuffix(f"/{MANIFEST}"), json.loads((settings.path / name).read_bytes())


def digests(settings: CampaignSettings) -> dict[str, str]:
    """Digest of every product by its folder; not of reports, which tell times."""
    return {folder: each["digest"] for folder, each in manifests(settings) if each["recipe"]["stage"] != "report"}
