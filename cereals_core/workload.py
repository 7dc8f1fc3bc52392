"""The work of a campaign: what its stages have to do at most, from its settings and the sizes of its images alone.

Counts are those that the settings allow: a training may converge before `training.max_steps`, and a campaign may end
before `stop.rounds`.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import islice
from math import ceil, prod

from cereals_core.acquisition import Budget, round_budget
from cereals_core.errors import SettingsError
from cereals_core.grid import candidate_shape, map_shape
from cereals_core.settings import CampaignSettings

Size = tuple[int, int]
"""Height and width of an image in pixels."""


class Workload:
    """A campaign on a pool with images of these sizes, and so many images for evaluation, of so many classes."""

    def __init__(self, settings: CampaignSettings, sizes: Sequence[Size], eval_images: int, classes: int) -> None:
        self.settings, self.wanted = settings, settings.acquisition
        self.counts, self.images = Counter(sizes), len(sizes)
        self.eval_images, self.classes = eval_images, classes

    @property
    def rounds(self) -> int:
        """Rounds of queries; one more trains and is evaluated."""
        return self.settings.stop.rounds

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
    def queries(self) -> int:
        """Queries of a round."""
        return self.budget.most_queries

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
        """Count the pixels that so many rounds may ask for."""
        a_round = self.budget.amount
        if self.budget.unit == "clicks":
            query_px = self.wanted.window_px**2 if self.wanted.unit == "region" else prod(self.largest)
            a_round = float(self.queries * query_px)
        return min(rounds * a_round, float(self.pixels))

    def labelled_images(self, number: int) -> int:
        """Count the images with a label that a round trains on."""
        return min(self.seed_images + number * self.queries, self.images)

    def unlabelled_images(self, number: int) -> int:
        """Count the images with anything left to ask for in a round."""
        asked = number * self.queries if self.wanted.unit == "image" else 0
        return max(self.images - self.seed_images - asked, 0)

    def steps(self, number: int) -> int:
        """Count the training steps of a round: those that are set; or in whole epochs until `max_steps` is reached."""
        training = self.settings.training
        if training.steps is not None:
            return training.steps
        of_an_epoch = ceil(self.labelled_images(number) / training.batch_images)
        return of_an_epoch * ceil(training.max_steps / of_an_epoch)

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
        """Regions left by suppression: as many as a round may ask for, or fit side by side into the images."""
        if self.wanted.unit == "image":
            return min(self.images, self.queries)
        fitting = sum(
            count * prod(side // self.wanted.window_px for side in size) for size, count in self.counts.items()
        )
        return min(fitting, self.queries)

    def refuse_impossible(self) -> None:
        """Raise SettingsError when the pool cannot serve what the settings ask for."""
        wanted = self.wanted
        if wanted.seed_images != "all" and wanted.seed_images > self.images:
            raise SettingsError(
                f"acquisition.seed_images = {wanted.seed_images}: the pool has {self.images} images; "
                "lower it to so many at most, or enlarge the pool"
            )
        window_px = wanted.window_px
        if wanted.unit == "region" and not any(all(candidate_shape(*size, window_px)) for size in self.counts):
            sizes = ", ".join(f"{height}x{width}" for height, width in islice(self.counts, 5))
            raise SettingsError(
                f"acquisition.window_px = {window_px}: fits into no image of the pool (height x width {sizes}); "
                "lower it"
            )
        self.budget  # noqa: B018  (raises as well)
