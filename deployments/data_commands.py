"""Commands about data sets: `cereals data check`, `clicks` and `synth`."""

from pathlib import Path
from typing import Annotated

import typer

from deployments.environment import prepare_environment

data = typer.Typer(help="Look at data sets, or make one.", no_args_is_help=True)
CampaignFile = Annotated[Path, typer.Argument(help="A campaign file (TOML).", show_default=False)]


@data.command()
def check(file: CampaignFile) -> None:
    """Read every image and its truth once, and list all that is broken."""
    prepare_environment()
    from cereals_core.settings_files import read_settings
    from tasks.examination import examine, images_in_both
    from tasks.pages.wording import in_both

    found = examine(read_settings(file))
    for split, images in found.items():
        typer.echo(f"{split}: {len(images)} images, no problems")
    if warning := in_both(images_in_both(found)):
        typer.echo(warning)


@data.command()
def clicks(
    file: CampaignFile,
    window: Annotated[
        int | None, typer.Option(min=8, help="Count regions of so many pixels a side too.", show_default=False)
    ] = None,
    traced: Annotated[bool, typer.Option("--traced", help="Compare with clicks traced from the labels.")] = False,
) -> None:
    """Count the clicks of every image, as a campaign would pay for them."""
    prepare_environment()
    from cereals_core.settings_files import read_settings
    from deployments.click_totals import show_clicks

    for text in show_clicks(read_settings(file), window, traced):
        typer.echo(text)


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
    from cereals_core.data_settings import SyntheticData
    from cereals_core.datasets.cityscapes import write_cityscapes_layout
    from tasks.telling.progress import track

    streets = SyntheticData(
        format="synthetic", seed=seed, pool_images=images, eval_images=val_images, height=height, width=width
    )
    with track("draw", images + val_images, "images") as advance:
        write_cityscapes_layout(streets, folder, advance)
    typer.echo(f'{folder}: {images} train and {val_images} val images; read them with format = "cityscapes"')
