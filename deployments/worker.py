"""`cereals worker`: this host's workers for a Dask scheduler."""

import asyncio
import re
import socket
from contextlib import AsyncExitStack
from ipaddress import ip_address
from urllib.parse import urlsplit

from distributed.utils import get_ip

from cereals_core.errors import WorkersError
from cereals_core.settings import ADDRESS
from tasks.running.workers import worker_specs
from tasks.telling.progress import console

CONNECT_S = 30.0
ENCRYPTED = ("tls", "wss")


def serve_workers(address: str) -> None:
    """Run one worker for each CUDA device and one for all else until the scheduler ends; WorkersError without one."""
    asyncio.run(_serve(address))


async def _serve(address: str) -> None:
    host = socket.gethostname()
    if not re.fullmatch(ADDRESS, address):
        raise WorkersError(f"{address}: no address of a Dask scheduler, such as tcp://10.0.0.1:8786; correct it")
    scheduler = urlsplit(address)
    own = get_ip(scheduler.hostname or "")
    if scheduler.scheme not in ENCRYPTED and not ip_address(own).is_loopback:
        warning = (
            f"workers at {own} run whatever is sent by anyone who reaches their ports; use TLS, or a closed network"
        )
        console.print(f"{warning} (deployments/README.md)", style="yellow", highlight=False, soft_wrap=True)
    specs = worker_specs(host=own)
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(CONNECT_S):
                workers = [
                    await stack.enter_async_context(spec["cls"](address, name=f"{host}-{name}", **spec["options"]))
                    for name, spec in specs.items()
                ]
        except (OSError, TimeoutError, RuntimeError) as error:
            why = error.__cause__ or error
            raise WorkersError(
                f"{address}: no Dask scheduler answers ({type(why).__name__} {why}); start one with `dask scheduler`, "
                "or correct the address"
            ) from None
        await asyncio.gather(*(worker.finished() for worker in workers))
