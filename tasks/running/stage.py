"""A stage: a product that is found or made, as a Prefect task inside of a flow, and all that is known of it."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from importlib import import_module
from typing import Any, Concatenate, Literal, ParamSpec

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.runtime import task_run
from prefect.states import Cancelled, Completed, State
from prefect.task_runners import ThreadPoolTaskRunner

from cereals_core.errors import CerealsError
from cereals_core.settings import CampaignSettings, deciding_settings
from tasks.pages.stages import stage_facts, stage_line
from tasks.pages.wording import stage_title
from tasks.running.takes import NOTHING, Takes
from tasks.running.work import Inputs, Work
from tasks.store.layout import Campaign
from tasks.store.products import Product, Recipe, find_product, making, require
from tasks.store.sharing import borrow, lend
from tasks.store.storage import is_full
from tasks.telling.metrics import write_metrics
from tasks.telling.progress import Interrupted, console, request_stop, told_to
from tasks.telling.run_progress import RunListener

Where = Literal["worker", "shards", "flow"]
"""Where a stage's body runs: as one call on a worker; in the process of the flow, which hands shards to workers; in the
process of the flow alone."""
RETRIED_AFTER_S = [1.0, 10.0]
"""A stage that failed is tried again after so long; it goes on from what it left."""
ONE_AT_A_TIME: Any = ThreadPoolTaskRunner(max_workers=1)
"""How flows run their stages."""
SEED_ROUND = None
"""Round number of the stages before the first round."""

Body = Callable[Concatenate[Work, ...], None]


@dataclass(eq=False)
class Stage:
    """A stage of a campaign, and all that is known of it; called, it returns its product.

    What the product is made from: `depends_on` are dotted keys of the settings; `version` changes whenever the same
    inputs would give another product. How it runs: `gpu` marks stages that want a CUDA device, `where` says in which
    process; `shareable` marks those whose product says nothing of its campaign, so that others of a study may take it
    over. When: `wanted` says of which campaigns, `asks` whether only in rounds that ask for something, and `lasting`
    whether its files are read again once its round has ended. What it takes of a machine: `takes`. What it made, in
    words for pages, from the facts that the body left: `note`.
    """

    body: Body
    name: str
    _: KW_ONLY
    version: int
    depends_on: tuple[str, ...]
    gpu: bool = False
    where: Where = "worker"
    shareable: bool = True
    wanted: Callable[[CampaignSettings], bool] = lambda settings: True
    asks: bool = True
    lasting: bool = False
    takes: Takes = NOTHING
    note: Callable[[Mapping[str, Any]], str] = lambda facts: ""
    place: int = field(default=0, init=False)
    """Its place in the order of running, which `tasks.stages` gives."""

    def __call__(self, campaign: Campaign, round_number: int | None = SEED_ROUND, **inputs: Product | None) -> Product:
        """Find or make the product: as a task of the current flow, or without a flow right here and in silence."""
        if FlowRunContext.get() is None:
            return self._find(campaign, round_number, inputs) or self._make(campaign, round_number, inputs)
        future = self.task.submit(campaign, round_number, inputs)
        try:
            product = future.result()
        except (KeyboardInterrupt, TerminationSignal):
            request_stop()
            raise
        assert isinstance(product, Product)
        return product

    @cached_property
    def task(self) -> Task[..., Any]:
        """The stage as Prefect runs it."""
        # No tags: for each task that has some, Prefect asks its server for slots, which took 2 s every few stages.
        return task(
            name=self.name,
            task_run_name=lambda: self._title(task_run.parameters["campaign"], task_run.parameters["round_number"]),
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRIED_AFTER_S),
            retry_delay_seconds=RETRIED_AFTER_S,
            retry_condition_fn=_may_pass,
        )(self.run)

    def _title(self, campaign: Campaign, round_number: int | None) -> str:
        return stage_title(campaign.settings.name, round_number, self.name)

    def run(self, campaign: Campaign, round_number: int | None, inputs: Inputs) -> "Product | State[Any]":
        """Find or make the product inside of a task run, and tell of it."""
        when = "start    " if round_number is None else f"round {round_number}/{campaign.settings.stop.rounds}"
        where, title = f"{campaign.settings.name} {when}  {self.name:<14}", self._title(campaign, round_number)
        found = self._find(campaign, round_number, inputs)
        if found is not None:
            console.print(f"{where} reused", style="dim", highlight=False)
            get_run_logger().info("%s: reused, made before", title)
            return Completed(name="Reused", message=f"valid product found in {found.folder}", data=found)
        try:
            with told_to(RunListener()):
                product = self._make(campaign, round_number, inputs)
        except Interrupted as error:
            return Cancelled(message=str(error))
        write_metrics(campaign)
        console.print(f"{where} {product.elapsed_s:8.1f} s", highlight=False)
        get_run_logger().info(stage_line(title, stage_facts(product)))
        return product

    def _find(self, campaign: Campaign, round_number: int | None, inputs: Inputs) -> Product | None:
        """Find the product, here or where campaigns of a study share theirs."""
        folder, recipe = campaign.stage(self.name, round_number), self.recipe(campaign, round_number, inputs)
        found = find_product(folder, recipe)
        if found is None and campaign.shared is not None and self.shareable:
            return borrow(folder, recipe, campaign.shared)
        return found

    def _make(self, campaign: Campaign, round_number: int | None, inputs: Inputs) -> Product:
        """Make the product."""
        folder, recipe = campaign.stage(self.name, round_number), self.recipe(campaign, round_number, inputs)
        with making(folder, recipe) as (work_folder, facts):
            work = Work(self.name, campaign, round_number, work_folder, facts, self.gpu)
            if self.where == "worker":
                call = partial(_run_body, self.body.__module__, self.body.__name__, work)
                facts.update(*work.each(call, [inputs]))
            else:
                self.body(work, **inputs)
            facts.update(note=self.note(facts), place=self.place)
        product = require(find_product(folder, recipe), folder)
        if campaign.shared is not None and self.shareable:
            lend(product, campaign.shared)
        return product

    def recipe(self, campaign: Campaign, round_number: int | None, inputs: Inputs) -> Recipe:
        """Say what the product is made from."""
        settings = deciding_settings(campaign.settings)
        chosen = {key: _look_up(settings, key) for key in self.depends_on}
        digests = {name: product.digest for name, product in inputs.items() if product is not None}
        return Recipe(self.name, self.version, {**chosen, "round": round_number}, digests)


Facts = ParamSpec("Facts")


def _decorator(kind: Callable[Concatenate[Body, Facts], Stage]) -> Callable[Facts, Callable[[Body], Stage]]:
    return lambda *args, **kwargs: lambda body: kind(body, *args, **kwargs)


stage = _decorator(Stage)
"""Turns a body `(work, **inputs) -> None` into a stage with these facts: `@stage("evaluate", version=1, ...)`."""


def _may_pass(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell whether a failure may be gone at the next attempt: not if it was told on purpose, or the disk is full."""
    return not (isinstance(state.data, CerealsError) or is_full(state.data))


def _run_body(module: str, name: str, work: Work, inputs: Inputs) -> dict[str, Any]:
    """Run the body of a stage, found by its name, since on a worker it is another object; return the facts it left."""
    stage: Stage = getattr(import_module(module), name)
    stage.body(work, **inputs)
    return work.facts


def _look_up(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value
