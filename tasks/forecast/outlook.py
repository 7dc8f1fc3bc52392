"""What a campaign will hold at most: counts, pixels and bytes that follow from its settings and its pool alone."""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from math import prod

from cereals_core.acquisition import Budget, round_budget
from cereals_core.grid import map_shape
from cereals_core.settings import CampaignSettings

Size = tuple[int, int]
"""Height and width of an image in pixels."""


class Outlook:
    """A campaign on a pool with images of these sizes, as far as `stop.rounds` allows it to go."""

    def __init__(self, settings: CampaignSettings, sizes: Sequence[Size]) -> None:
        self.settings, self.wanted = settings, settings.acquisition
        self.counts, self.images = Counter(sizes), len(sizes)

    @cached_property
    def pixels(self) -> int:
        """Pixels of the pool."""
        return sum(count * prod(size) for size, count in self.counts.items())

    @property
    def mean_px(self) -> float:
        """Pixels of an image."""
        return self.pixels / self.images

    @property
    def largest(self) -> Size:
        """Size of the image with the most pixels."""
        return max(self.counts, key=prod)

    @cached_property
    def budget(self) -> Budget:
        """What a round may spend."""
        return round_budget(self.wanted, self.mean_px, min(map(prod, self.counts)))

    @property
    def seed_images(self) -> int:
        """Images of the seed set."""
        wanted = self.wanted.seed_images
        return self.images if wanted == "all" else min(wanted, self.images)

    @property
    def seed_px(self) -> float:
        """Pixels of the seed set."""
        return self.seed_images * self.mean_px

    def asked_px(self, rounds: int) -> float:
        """Pixels that so many rounds may ask for at most."""
        a_round = self.budget.amount
        if self.budget.unit == "clicks":
            query_px = self.wanted.window_px**2 if self.wanted.unit == "region" else prod(self.largest)
            a_round = float(self.budget.most_queries * query_px)
        return min(rounds * a_round, float(self.pixels))

    def touched_images(self, rounds: int) -> int:
        """Images with a label after so many rounds at most."""
        return min(self.seed_images + rounds * self.budget.most_queries, self.images)

    @property
    def shard_cells(self) -> int:
        """Cells of the largest shard of maps."""
        images = self.settings.compute.shard_images
        return max(min(count, images) * prod(map_shape(*size)) for size, count in self.counts.items())

    @property
    def map_bytes(self) -> int:
        """Bytes of a float16 map of the pool."""
        return 2 * sum(count * prod(map_shape(*size)) for size, count in self.counts.items())

    @property
    def most_proposals(self) -> int:
        """Regions left by suppression at most: as many as a round may ask for, or fit side by side into the images."""
        if self.wanted.unit == "image":
            return min(self.images, self.budget.most_queries)
        fitting = sum(
            count * prod(side // self.wanted.window_px for side in size) for size, count in self.counts.items()
        )
        return min(fitting, self.budget.most_queries)
