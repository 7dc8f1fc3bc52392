"""What a study file may say: a campaign file without strategy and seed, and which of them to compare."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cereals_core.data_settings import Section
from cereals_core.settings import NAME, CampaignSettings, SettingsFile
from cereals_core.strategies import STRATEGIES

FULL_LABELS = "full-labels"
"""Arm of the reference: everything labelled, trained by the same code."""
REPEATED = "repeated"
"""Arm that runs the first strategy and seed once more, sharing nothing."""
_BUDGETS = ("images_per_round", "clicks_per_round")
_STRATEGY_KEYS = ("strategy", "unit", "information", "cost", "fusion")


class Arms(Section):
    """The `[study]` section."""

    strategies: tuple[Literal[tuple(STRATEGIES)], ...] = Field(min_length=1, strict=False)  # type: ignore[valid-type]
    """Names of strategies; the first is what the others are compared with, unless random-regions is among them."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**53)], ...] = Field((1, 2, 3), min_length=1, strict=False)
    """Campaigns of one seed share their seed set, so that strategies are compared in pairs."""
    windows_px: tuple[int, ...] = Field((), strict=False)
    """Windows to run every strategy of regions with; empty: `acquisition.window_px` alone."""
    variants: dict[Annotated[str, Field(pattern=NAME)], dict[str, Any]] = Field({})
    """Further arms by name: `strategy` and keys of `[acquisition]` beside it, which are an arm's own."""
    repeat: bool = True
    """Run the first strategy and seed twice: how much of a difference is noise."""

    @model_validator(mode="after")
    def _each_once(self) -> "Arms":
        for key in ("strategies", "seeds", "windows_px"):
            values = getattr(self, key)
            if len(set(values)) < len(values):
                raise ValueError(f"{key} names one twice: {list(values)}; remove it")
        return self

    @model_validator(mode="after")
    def _variants_are_arms(self) -> "Arms":
        for name, keys in self.variants.items():
            if keys.get("strategy") not in STRATEGIES:
                raise ValueError(
                    f'variants.{name} names no strategy but {keys.get("strategy")!r}; set strategy = "..."'
                )
            if shared := sorted({"seed_images", *_BUDGETS} & keys.keys()):
                raise ValueError(f"variants.{name} sets {shared[0]}, which all arms have in common; remove it")
            if name in (*STRATEGIES, FULL_LABELS, REPEATED):
                raise ValueError(f"variants.{name}: is the name of another arm; take another")
        return self


class StudySettings(SettingsFile):
    """One study file (TOML): `[study]`, and the sections of a campaign file that all campaigns have in common."""

    home = "studies"
    study: Arms

    @model_validator(mode="after")
    def _campaigns_are_valid(self) -> "StudySettings":
        given = sorted(self.acquisition.model_fields_set & set(_STRATEGY_KEYS))
        if given:
            raise ValueError(f"acquisition.{given[0]}: the strategies of a study say this; remove it")
        for arm in self.arms():
            self.campaign(arm, self.study.seeds[0])
        return self

    def arms(self) -> dict[str, dict[str, Any]]:
        """Name of each strategy's arm, with the window if there are several, to its keys of `[acquisition]`."""
        windows = self.study.windows_px or (self.acquisition.window_px,)
        arms: dict[str, dict[str, Any]] = {}
        for strategy in self.study.strategies:
            by_window = STRATEGIES[strategy].unit == "region"
            for window_px in windows if by_window else windows[:1]:
                name = f"{strategy}-{window_px}px" if by_window and len(windows) > 1 else strategy
                arms[name] = {"strategy": strategy, "window_px": window_px}
        return arms | self.study.variants

    def campaign(self, arm: str, seed: int) -> CampaignSettings:
        """Return the campaign of one arm and seed; `arm` may be FULL_LABELS and REPEATED too."""
        arms, stop = self.arms(), self.stop.model_dump()
        if arm == FULL_LABELS:
            keys: dict[str, Any] = {"strategy": "random-images", "seed_images": "all", "clicks_per_round": None}
            stop = {"rounds": 0}
        else:
            keys = arms[next(iter(arms)) if arm == REPEATED else arm]
        common = self.model_dump(exclude={"study", "name", "folder", "acquisition", "stop"})
        shared = self.acquisition.model_dump(exclude=set(_STRATEGY_KEYS))
        return CampaignSettings.model_validate(
            common
            | {
                "name": f"{self.name}-{arm}-seed-{seed}",
                "seed": seed,
                "folder": self.path / "campaigns" / arm / f"seed-{seed}",
                "acquisition": shared | keys,
                "stop": stop,
            }
        )

    def campaigns(self) -> list[tuple[str, CampaignSettings]]:
        """List all campaigns with their arms, in the order they run: seed by seed, so that pairs are there early."""
        arms = [FULL_LABELS, *self.arms()]
        planned = [(arm, self.campaign(arm, seed)) for seed in self.study.seeds for arm in arms]
        if self.study.repeat:
            planned.append((REPEATED, self.campaign(REPEATED, self.study.seeds[0])))
        return planned
