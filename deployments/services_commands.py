"""`cereals up` and `cereals down`: a server with workers on this machine, started and ended by one command each."""

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cereals_core.errors import ServicesError
from deployments.environment import KEPT_DAYS, prepare_environment

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

    from deployments.services import Services

SERVER = "server"
PORT = 4200
START_S = 300.0
PREFECT = [sys.executable, "-m", "prefect"]


@dataclass(frozen=True)
class Worker:
    """A worker of a pool: how many runs it has at a time, and the CUDA device they see, "" for none."""

    pool: str
    runs: int
    device: str


def up(
    files: Annotated[list[Path], typer.Argument(help="Campaign and study files to deploy.", show_default=False)] = [],  # noqa: B006
    cron: Annotated[str | None, typer.Option(help='When they run, as "0 20 * * *".', show_default=False)] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Rounds of a campaign a run.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(min=1024, max=65535, help=f"Port of the server, else {PORT}.")] = None,
    database: Annotated[
        str | None, typer.Option(help="postgresql+asyncpg://user:password@host/name, else SQLite.", show_default=False)
    ] = None,
    retention_days: Annotated[int, typer.Option(min=1, help="Days for which ended runs are kept.")] = KEPT_DAYS,
    cpu_runs: Annotated[int, typer.Option(min=1, help="Runs on the CPU pool at a time.")] = 2,
) -> None:
    """Start a Prefect server, its workers and deployments on this machine, or what is missing of them."""
    if (cron or rounds) and not files:
        raise typer.BadParameter("--cron and --rounds are for campaign files; name them too")
    services = _services()
    if services.process(SERVER) and (port not in (None, services.state.port) or database is not None):
        raise ServicesError(f"the server is up on port {services.state.port}; `cereals down` before other settings")
    from prefect.client.orchestration import SyncPrefectClient

    from deployments.server import deploy, plan, schedules_of, server_environment

    planned, schedules = plan(files, rounds), schedules_of(cron)
    services.state.port = (services.state.port if services.process(SERVER) else port) or PORT
    devices = cuda_devices()
    environment = server_environment(services.state.port, retention_days)
    environment["CEREALS_POOL"] = os.environ.get("CEREALS_POOL") or default_pool(devices)
    with SyncPrefectClient(environment["PREFECT_API_URL"]) as client, _all_or_nothing(services):
        started = _start_server(services, client, environment, database)
        for each in planned:
            typer.echo(f"deployed {deploy(client, each, schedules)}")
        started += _start_workers(services, client, environment, wanted_workers(devices, cpu_runs))
    _tell(services, started)


def down(
    wait: Annotated[int, typer.Option(min=0, help="Seconds from SIGTERM to SIGKILL, for each in turn.")] = 60,
) -> None:
    """End the server and the workers that `up` started, and what they run; runs stop after the step in hand."""
    services = _services()
    for name in services.end(wait):
        typer.echo(f"ended {name}")


def cuda_devices() -> list[str]:
    """List the CUDA devices that this machine lets its processes see."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not torch.cuda.is_available():
        return []
    return visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]


def default_pool(devices: Sequence[str]) -> str:
    """Return the pool for campaigns and studies."""
    from deployments.server import CPU_POOL, CUDA_POOL

    return CUDA_POOL if devices else CPU_POOL


def wanted_workers(devices: Sequence[str], cpu_runs: int) -> dict[str, Worker]:
    """Choose the workers of a machine by name: one that sees no device, and one for each, with a run at a time."""
    from deployments.server import CPU_POOL, CUDA_POOL

    cuda = {f"cuda-{device}": Worker(CUDA_POOL, 1, device) for device in devices}
    return {"cpu": Worker(CPU_POOL, cpu_runs, ""), **cuda}


def _services() -> "Services":
    from deployments.services import Services

    prepare_environment()
    return Services(Path(os.environ.get("PREFECT_HOME", Path.home() / ".prefect")))


@contextmanager
def _all_or_nothing(services: "Services") -> Iterator[None]:
    """End everything again when a start from nothing fails."""
    was_up = services.process(SERVER) is not None
    try:
        yield
    except BaseException:
        if not was_up:
            services.end(wait_s=10)
        raise


def _start_server(
    services: "Services", client: "SyncPrefectClient", environment: Mapping[str, str], database: str | None
) -> list[str]:
    """Start the server and give it all it needs, unless it is up; what was started."""
    from deployments.server import deploy_all, furnish, is_healthy, wait_until

    if services.process(SERVER):
        return []
    _refuse_taken_port(services.state.port or PORT)
    own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": database} if database else {}
    services.start(SERVER, [*PREFECT, "server", "start"], {**environment, **own})
    wait_until(partial(is_healthy, client), partial(services.require, SERVER), START_S, "the server does not answer")
    furnish(client)
    deploy_all(environment)
    return [SERVER]


def _refuse_taken_port(port: int) -> None:
    """Raise ServicesError if another program listens there, whose answers would be taken for the server's."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ServicesError(
                f"port {port} cannot be had ({error.strerror}); end what listens there, or choose another: "
                f"cereals up --port {port + 1}"
            ) from None


def _start_workers(
    services: "Services", client: "SyncPrefectClient", environment: Mapping[str, str], wanted: Mapping[str, Worker]
) -> list[str]:
    """Start the workers that are missing, and wait until each has asked for work; what was started."""
    from deployments.server import has_reported, wait_until

    missing = {name: worker for name, worker in wanted.items() if services.process(name) is None}
    for name, worker in missing.items():
        command = [*PREFECT, "worker", "start", "--pool", worker.pool, "--type", "process", "--limit", str(worker.runs)]
        seen = {"CUDA_VISIBLE_DEVICES": worker.device}
        services.start(name, [*command, "--name", _worker_name(name)], {**environment, **seen})
    for name, worker in missing.items():
        reported = partial(has_reported, client, worker.pool, _worker_name(name), services.state.services[name].started)
        wait_until(reported, partial(services.require, name), START_S, f"worker {name} does not ask for work")
    return list(missing)


def _worker_name(name: str) -> str:
    return f"{socket.gethostname()}-{name}"


def _tell(services: "Services", started: Sequence[str]) -> None:
    url = f"http://127.0.0.1:{services.state.port}"
    typer.echo(f"{'up' if started else 'already up'}: {url}")
    for name, service in services.state.services.items():
        typer.echo(f"  {name:<8} process {service.pid}, log {service.log}")
    typer.echo(f"`cereals run` goes there with: export PREFECT_API_URL={url}/api")
