"""The command line. Heavy libraries are imported where a command needs them, so that help and status answer at once."""

import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from cereals_core.errors import CerealsError
from deployments.environment import prepare_environment

app = typer.Typer(
    help="Region-based, cost-aware active learning for semantic segmentation (CEREALS).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
data = typer.Typer(help="Look at data sets, or make one.", no_args_is_help=True)
app.add_typer(data, name="data")

CampaignFiles = Annotated[list[Path], typer.Argument(help="Campaign files (TOML).", show_default=False)]
CampaignFile = Annotated[Path, typer.Argument(help="A campaign file (TOML).", show_default=False)]


@app.command()
def run(files: CampaignFiles) -> None:
    """Start campaigns, or go on with them, one after the other; several are compared at the end."""
    from cereals_core.settings_files import read_settings

    settings = [read_settings(file) for file in files]
    prepare_environment()
    from flows.campaign import run_campaign
    from tasks.start import open_campaign

    for each in settings:
        open_campaign(each)
    with _stopping_cleanly(files):
        for each in settings:
            reason = run_campaign(each)
            typer.echo(f"{each.name}: {reason}")
    status(files)


@app.command()
def status(files: CampaignFiles) -> None:
    """Show what campaigns have reached."""
    from deployments.status import show_status

    typer.echo(show_status(files))


@app.command()
def report(file: CampaignFile) -> None:
    """Write a campaign's report, one self-contained HTML file, into its folder."""
    prepare_environment()
    from deployments.status import open_existing
    from tasks.reporting import report_campaign

    typer.echo(report_campaign(open_existing(file)))


@data.command()
def check(file: CampaignFile) -> None:
    """Read every image and its truth once, and list all that is broken."""
    prepare_environment()
    from cereals_core.settings_files import read_settings
    from tasks.start import examine

    for split, images in examine(read_settings(file)).items():
        typer.echo(f"{split}: {len(images)} images, no problems")


@data.command()
def synth(
    folder: Annotated[Path, typer.Argument(help="Folder to make; it must not exist.", show_default=False)],
    images: Annotated[int, typer.Option(min=1, help="Images of the train split.")] = 100,
    val_images: Annotated[int, typer.Option(min=1, help="Images of the val split.")] = 20,
    height: Annotated[int, typer.Option(min=32, help="Height in pixels.")] = 256,
    width: Annotated[int, typer.Option(min=32, help="Width in pixels.")] = 512,
    seed: Annotated[int, typer.Option(min=0)] = 0,
) -> None:
    """Draw synthetic streets with exact polygons, in Cityscapes' layout."""
    from cereals_core.datasets.synthetic import write_cityscapes_layout
    from cereals_core.settings import SyntheticData
    from tasks.progress import track

    streets = SyntheticData(
        format="synthetic", seed=seed, pool_images=images, eval_images=val_images, height=height, width=width
    )
    with track("draw", images + val_images, "images") as advance:
        write_cityscapes_layout(streets, folder, advance)
    typer.echo(f'{folder}: {images} train and {val_images} val images; read them with format = "cityscapes"')


@contextmanager
def _stopping_cleanly(files: Sequence[Path]) -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the work after the current step, a second one at once."""
    from prefect.exceptions import CancelledRun

    from tasks.progress import console, request_stop

    def stop(number: int, frame: Any) -> None:
        console.print("stopping after this step; once more stops at once", style="yellow")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        request_stop()

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    except CancelledRun:
        typer.echo(f"stopped; `cereals run {' '.join(map(str, files))}` goes on from here", err=True)
        raise typer.Exit(130) from None


def main() -> None:
    """Entry point: errors of this project are shown as their text alone."""
    try:
        app()
    except CerealsError as error:
        typer.echo(f"cereals: {error}", err=True)
        sys.exit(1)
