"""What all stages share: a Prefect task around a body that writes one product, skipped when the product is there."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Concatenate, Literal, TypeVar

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import TaskRun
from prefect.exceptions import TerminationSignal
from prefect.runtime import task_run
from prefect.states import Cancelled, Completed, State

from cereals_core.errors import CerealsError
from cereals_core.settings import deciding_settings
from tasks.pages.stages import stage_facts, stage_line
from tasks.pages.wording import stage_title
from tasks.running.workers import current_workers
from tasks.store.layout import Campaign
from tasks.store.products import Product, Recipe, find_product, making, require
from tasks.store.sharing import borrow, lend
from tasks.store.storage import is_full
from tasks.telling.metrics import write_metrics
from tasks.telling.progress import Interrupted, console, request_stop, told_to
from tasks.telling.run_progress import RunListener

Batch = TypeVar("Batch")
Where = Literal["worker", "shards", "flow"]
"""Where a stage's body runs: as one call on a worker; in the process of the flow, which hands shards to workers; in the
process of the flow alone."""
RETRIED_AFTER_S = [1.0, 10.0]
"""A stage that failed is tried again after so long; it goes on from what it left."""
SEED_ROUND = None
"""Round number of the stages before the first round."""


@dataclass(frozen=True)
class Work:
    """What a stage's body gets: campaign, round, the folder to write into, and the facts to leave in the manifest.

    `gpu` tells whether its calls want a CUDA device.
    """

    campaign: Campaign
    round_number: int | None
    folder: Path
    facts: dict[str, Any]
    gpu: bool = False

    @property
    def number(self) -> int:
        """The round's number, in stages that belong to a round."""
        assert self.round_number is not None
        return self.round_number

    @property
    def lanes(self) -> int:
        """How many calls of `each` run at a time."""
        return current_workers().lanes(self.gpu)

    def each(self, function: Callable[[Batch], Any], batches: Iterable[Batch]) -> Iterator[Any]:
        """Results of `function` on every batch, in their order, wherever stages run; function and results are pickled.

        Peak memory and hosts go into the facts.
        """
        hosts, peak_bytes = set(self.facts.get("hosts", ())), self.facts.get("peak_bytes", 0)
        for done in current_workers().each(function, batches, self.gpu):
            hosts.add(done.host)
            peak_bytes = max(peak_bytes, done.peak_bytes)
            yield done.result
        self.facts.update(hosts=sorted(hosts), peak_bytes=peak_bytes)


Body = Callable[Concatenate[Work, ...], None]


class Stage:
    """A stage of a campaign. Calling it inside a flow runs it as a Prefect task and returns its product.

    `depends_on`: dotted keys of the settings its product depends on. `version` changes whenever the same inputs would
    give another product. `gpu` marks stages that want a CUDA device, and `where` says in which process they run;
    `shareable` marks those whose product says nothing of its campaign, so that others of a study may take it over.
    """

    def __init__(
        self, body: Body, name: str, version: int, depends_on: tuple[str, ...], gpu: bool, where: Where, shareable: bool
    ) -> None:
        self.body, self.name, self.version, self.depends_on = body, name, version, depends_on
        self.gpu, self.where, self.shareable = gpu, where, shareable
        # No tags: for each task that has some, Prefect asks its server for slots, which took 2 s every few stages.
        self.task = task(
            name=name,
            task_run_name=self._run_name,
            cache_policy=NO_CACHE,
            persist_result=False,
            retries=len(RETRIED_AFTER_S),
            retry_delay_seconds=RETRIED_AFTER_S,
            retry_condition_fn=_may_pass,
        )(self.run)

    def __call__(self, campaign: Campaign, round_number: int | None = SEED_ROUND, **inputs: Product | None) -> Product:
        """Run as a task of the current flow and wait for the product."""
        future = self.task.submit(campaign, round_number, inputs)
        try:
            product = future.result()
        except (KeyboardInterrupt, TerminationSignal):
            request_stop()
            raise
        assert isinstance(product, Product)
        return product

    def _run_name(self) -> str:
        given = task_run.parameters
        return stage_title(given["campaign"].settings.name, given["round_number"], self.name)

    def run(
        self, campaign: Campaign, round_number: int | None, inputs: Mapping[str, Product | None]
    ) -> "Product | State[Any]":
        """Return the product that is there, or make it."""
        folder, recipe = campaign.stage(self.name, round_number), self.recipe(campaign, round_number, inputs)
        when = "start    " if round_number is None else f"round {round_number}/{campaign.settings.stop.rounds}"
        where = f"{campaign.settings.name} {when}  {self.name:<14}"
        title = stage_title(campaign.settings.name, round_number, self.name)
        found = find_product(folder, recipe) or self._borrowed(campaign, folder, recipe)
        if found is not None:
            console.print(f"{where} reused", style="dim", highlight=False)
            get_run_logger().info("%s: reused, made before", title)
            return Completed(name="Reused", message=f"valid product found in {folder}", data=found)
        try:
            with told_to(RunListener()), making(folder, recipe) as (work_folder, facts):
                work = Work(campaign, round_number, work_folder, facts, self.gpu)
                if self.where == "worker":
                    call = partial(_run_body, self.body.__module__, self.body.__name__, work)
                    facts.update(*work.each(call, [inputs]))
                else:
                    self.body(work, **inputs)
        except Interrupted as error:
            return Cancelled(message=str(error))
        product = require(find_product(folder, recipe), folder)
        write_metrics(campaign)
        if campaign.shared is not None and self.shareable:
            lend(product, campaign.shared)
        console.print(f"{where} {product.elapsed_s:8.1f} s", highlight=False)
        said = stage_facts(self.name, product.elapsed_s, product.total_bytes, product.facts)
        get_run_logger().info(stage_line(title, said))
        return product

    def _borrowed(self, campaign: Campaign, folder: Path, recipe: Recipe) -> Product | None:
        if campaign.shared is None or not self.shareable:
            return None
        return borrow(folder, recipe, campaign.shared)

    def recipe(self, campaign: Campaign, round_number: int | None, inputs: Mapping[str, Product | None]) -> Recipe:
        """What the product is made from."""
        settings = deciding_settings(campaign.settings)
        chosen = {key: _look_up(settings, key) for key in self.depends_on}
        digests = {name: product.digest for name, product in inputs.items() if product is not None}
        return Recipe(self.name, self.version, {**chosen, "round": round_number}, digests)


def stage(
    name: str,
    *,
    version: int,
    depends_on: tuple[str, ...],
    gpu: bool = False,
    where: Where = "worker",
    shareable: bool = True,
) -> Callable[[Body], Stage]:
    """Turn a body `(work, **inputs) -> None` into a stage."""
    return lambda body: Stage(body, name, version, depends_on, gpu, where, shareable)


def _may_pass(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a failure may be gone at the next attempt: not if it was told on purpose, or the disk is full."""
    return not (isinstance(state.data, CerealsError) or is_full(state.data))


def _run_body(module: str, name: str, work: Work, inputs: Mapping[str, Product | None]) -> dict[str, Any]:
    """Run the body of a stage, found by its name, since on a worker it is another object; returns the facts it left."""
    stage: Stage = getattr(import_module(module), name)
    stage.body(work, **inputs)
    return work.facts


def _look_up(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        value = value[part]
    return value
