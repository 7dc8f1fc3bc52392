"""What a campaign file may say of what is asked for: strategies by name or by their parts, and budgets."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cereals_core.data_settings import Section
from cereals_core.fusion import FUSIONS
from cereals_core.grid import STRIDE_PX
from cereals_core.strategies import DRAWN, MEASURES, STRATEGIES, Cost, Unit

CountOrAll = Annotated[
    Annotated[int, Field(gt=0), Tag("count")] | Annotated[Literal["all"], Tag("word")],
    Discriminator(lambda value: "word" if isinstance(value, str) else "count"),
]


def _parts_of(strategy: Any, clicks_per_round: Any) -> dict[str, str]:
    """Return the keys that a strategy's name stands for; none for what is no such name."""
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        return {}
    parts = {key: getattr(STRATEGIES[strategy], key) for key in ("unit", "information", "cost", "fusion")}
    return parts | ({"cost": "learned"} if clicks_per_round is not None and parts["cost"] == "none" else {})


class Acquisition(Section):
    """What is asked for, and how much of it a round."""

    strategy: Literal[tuple(STRATEGIES)] | None = None  # type: ignore[valid-type]  # pydantic reads the names at run time
    """A name for `unit`, `information`, `cost` and `fusion` together; absent: they are given one by one."""
    seed_images: CountOrAll = 50
    """n: images drawn uniformly and labelled in full before round 0; "all": the whole pool."""
    images_per_round: float = Field(50, gt=0)
    """m: a round asks for regions that together hold the pixels of so many images of mean size."""
    clicks_per_round: float | None = Field(None, gt=0)
    """A budget in predicted clicks in place of `images_per_round`; a strategy without cost learns one for it alone."""
    unit: Unit = "region"
    """What a query is: a window, or a whole image."""
    window_px: int = Field(128, gt=0)
    information: Literal[(*MEASURES, *DRAWN)] = "vote_entropy"  # type: ignore[valid-type]
    """A measure; or "random", and "random_by_class", which draws regions so that each predicted class has as many."""
    dropout_samples: int = Field(20, gt=1, le=255)
    """N_E: samples of vote entropy and BALD."""
    cost: Cost = "learned"
    """"true" takes the clicks from the pool's truth: an upper bound for studies, never to be had in practice."""
    fusion: Literal[tuple(FUSIONS)] = "g1"  # type: ignore[valid-type]
    alpha: float = Field(0.5, ge=0, le=1)
    """Weight of information in g3."""
    offset: float = Field(0.05, gt=0)
    """What "per_click" adds to the cost, in [0, 1] over the pool: against predictions near 0."""
    class_weight: float = Field(0.0, ge=0)
    """c: information of a cell counts (1 + c p)^-2 of itself, p being the share of its predicted class in the pool."""
    class_share: float = Field(0.0, ge=0, le=1)
    """Share of a round's budget that is spent class by class, on regions of each predicted class as much."""
    noise: float = Field(0.0, ge=0)
    """Scale of Gumbel noise that is added to logarithms of scores in round 0; in round r it is noise / (1 + r)."""
    regions_per_image: int | None = Field(None, gt=0)
    """Ask for so many regions of an image at most in a round."""
    region_price: bool = False
    """Compare regions by what all clicks of one would cost: vertices, and for its predicted classes border crossings
    and a click for each component."""
    batch_images: int = Field(1, gt=0)
    """Images that go through a network together when maps are made, if they are of one size: for GPUs and small images;
    on CPUs it does not pay. It changes the last bits of maps."""

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, raw: Any) -> Any:
        """Fill in what the strategy's name means; keys given beside it are compared once all are known to be valid."""
        return _parts_of(raw.get("strategy"), raw.get("clicks_per_round")) | raw if isinstance(raw, dict) else raw

    @model_validator(mode="after")
    def _combinations(self) -> "Acquisition":
        if mistakes := self._mistakes():
            raise ValueError("; ".join(mistakes))
        return self

    def _mistakes(self) -> list[str]:
        mistakes = [
            f'strategy = "{self.strategy}" means {key} = "{value}", not "{getattr(self, key)}"; remove one of the two'
            for key, value in _parts_of(self.strategy, self.clicks_per_round).items()
            if getattr(self, key) != value
        ]
        if self.window_px % STRIDE_PX:
            mistakes.append(f"window_px = {self.window_px}: must be a multiple of {STRIDE_PX}, the stride of the maps")
        if self.fusion != "none" and self.cost == "none":
            mistakes.append(f'fusion = "{self.fusion}" needs a cost: set cost = "learned", or fusion = "none"')
        if self.is_drawn and self.fusion != "none":
            mistakes.append(
                f'information = "{self.information}" is not fused: set fusion = "none", not "{self.fusion}"'
            )
        if self.clicks_per_round is not None and self.cost == "none":
            mistakes.append(f'clicks_per_round = {self.clicks_per_round} needs a cost: set cost = "learned"')
        return [*mistakes, *self._unused()]

    def _unused(self) -> list[str]:
        """List keys beyond the paper that are given where they would do nothing."""
        given = {
            "class_weight": self.class_weight,
            "noise": self.noise,
            "class_share": self.class_share,
            "regions_per_image": self.regions_per_image,
            "region_price": self.region_price,
        }
        mistakes = [
            f'{key} = {given[key]} is for scores, and information = "{self.information}" has none; remove it'
            for key in ("class_weight", "noise", "region_price")
            if given[key] and self.is_drawn
        ]
        if self.unit == "image":
            keys = [key for key in ("class_share", "regions_per_image", "region_price") if given[key]]
            mistakes += [f'{key} = {given[key]} is for unit = "region"; remove it' for key in keys]
            if self.information == "random_by_class":
                mistakes.append('information = "random_by_class" is for unit = "region"; take "random"')
        if self.region_price and self.fusion == "none":
            mistakes.append('region_price = true is a part of the cost: set fusion = "g1", or remove it')
        return mistakes

    @property
    def needs_dropout(self) -> bool:
        """Whether the information is measured over dropout samples."""
        return self.information in MEASURES and MEASURES[self.information].is_sampled

    @property
    def is_drawn(self) -> bool:
        """Whether regions are drawn, and nothing of them is measured."""
        return self.information in DRAWN

    @property
    def needs_classes(self) -> bool:
        """Whether the class of every cell of the pool has to be predicted."""
        drawn_by_class = self.information == "random_by_class"
        return drawn_by_class or self.class_weight > 0 or self.class_share > 0 or self.region_price
