"""The command line. Heavy libraries are imported where a command needs them, so that help and status answer at once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from cereals_core.errors import CerealsError, SettingsError
from deployments.data_commands import data
from deployments.environment import prepare_environment
from deployments.services_commands import down, up

app = typer.Typer(
    help="Region-based, cost-aware active learning for semantic segmentation (CEREALS).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data, name="data")
app.command()(up)
app.command()(down)

CampaignFiles = Annotated[list[Path], typer.Argument(help="Campaign files (TOML).", show_default=False)]
StudyFile = Annotated[Path, typer.Argument(help="A study file (TOML).", show_default=False)]
CampaignFile = Annotated[Path, typer.Argument(help="A campaign file (TOML).", show_default=False)]


@app.command()
def run(files: CampaignFiles) -> None:
    """Start campaigns, or go on with them, one after the other; several are compared at the end."""
    from cereals_core.settings_files import read_settings
    from deployments.starting import start_campaigns

    start_campaigns([read_settings(file) for file in files], _typed("run", files))
    status(files)


@app.command()
def plan(file: CampaignFile) -> None:
    """Tell time, memory and disk of what is left of a campaign, and write nothing; exits with 1 if something lacks."""
    prepare_environment()
    from deployments.plan import plan
    from tasks.pages.plan import plan_text

    facts = plan(file)
    typer.echo(plan_text(facts))
    if facts.shortages:
        raise typer.Exit(1)


@app.command()
def study(file: StudyFile) -> None:
    """Run strategies x seeds against each other, with a full-label reference, or go on with it; writes a report."""
    from cereals_core.settings_files import read_study
    from deployments.starting import start_study

    start_study(read_study(file), _typed("study", [file]))
    status([file])


@app.command()
def replay(
    file: CampaignFile,
    round_number: Annotated[int, typer.Argument(metavar="ROUND", min=0, help="A round that has asked.")],
    fusion: Annotated[list[str], typer.Option(help="g1, g2, g3 or none; may be repeated, as all of these.")] = [],  # noqa: B006
    alpha: Annotated[list[float], typer.Option(help="Weight of information in g3.")] = [],  # noqa: B006
    window_px: Annotated[list[int], typer.Option(help="Side of a region in pixels.")] = [],  # noqa: B006
    images_per_round: Annotated[list[float], typer.Option(help="Budget in images' worth of pixels.")] = [],  # noqa: B006
    clicks_per_round: Annotated[list[float], typer.Option(help="Budget in predicted clicks.")] = [],  # noqa: B006
    to: Annotated[Path | None, typer.Option(help="Parquet file for the queries of every variant.")] = None,
) -> None:
    """Choose a past round's queries again from its stored maps, under every combination of other settings."""
    prepare_environment()
    from cereals_core.settings_files import read_settings
    from deployments.replay import replay_changes, replay_table, write_queries
    from deployments.status import started
    from tasks import replay as replays
    from tasks.store.layout import Campaign

    if to is not None and (to.is_dir() or not to.parent.is_dir()):
        raise SettingsError(
            f"--to {to}: {'is a folder' if to.is_dir() else f'there is no folder {to.parent}'}; name a file"
        )
    settings = read_settings(file)
    campaign = started(Campaign(settings.path, settings), file)
    base = campaign.settings.acquisition
    wanted = replays.variants(base, fusion, alpha, window_px, images_per_round, clicks_per_round)
    made = list(replays.replay(campaign, round_number, wanted))
    typer.echo(replay_table(made))
    if len(made) == 1:
        typer.echo(replay_changes(made[0]))
    if to is not None:
        write_queries(made, to)
        typer.echo(f"queries of {len(made)} variants: {to}")


@app.command()
def status(files: CampaignFiles) -> None:
    """Show what campaigns, or a study, have reached."""
    from deployments.status import show_status

    typer.echo(show_status(files))


@app.command()
def benchmarks() -> None:
    """Show how fast each stage is on the machines that `make bench` was run on."""
    from tasks.pages.benchmarks import benchmark_text, read

    files = sorted((Path(__file__).parent.parent / "docs/benchmarks").glob("*.json"))
    typer.echo("\n\n".join(benchmark_text(read(file)) for file in files if not file.stem.endswith("-growth")))


@app.command()
def report(file: CampaignFile) -> None:
    """Write the report of a campaign or study, one self-contained HTML file, into its folder."""
    prepare_environment()
    from deployments.status import open_started
    from tasks.study_results import write_report

    typer.echo(write_report(open_started(file)))


@app.command()
def worker(
    address: Annotated[str, typer.Argument(help="Dask scheduler, as tcp://10.0.0.1:8786.", show_default=False)],
) -> None:
    """Serve a Dask scheduler with this host: a worker for each CUDA device, and one for all else; Ctrl-C ends them."""
    prepare_environment()
    from deployments.worker import serve_workers

    serve_workers(address)


@app.command()
def gc(
    file: CampaignFile,
    keep_rounds: Annotated[int, typer.Option(min=0, help="Rounds whose maps stay, the last ones.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell only what would go.")] = False,
) -> None:
    """Remove the maps of past rounds of a campaign or study, and what stages left behind that died."""
    prepare_environment()
    from deployments.garbage import collect

    lines = list(collect(file, keep_rounds, dry_run))
    typer.echo("\n".join(lines) or "nothing to remove")


@app.command()
def doctor(
    files: Annotated[list[Path] | None, typer.Argument(help="Campaign or study files (TOML).")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Read and hash every product.")] = False,
) -> None:
    """Look for what stands in the way of campaigns, each with its remedy; exits with 1 on a failure."""
    prepare_environment()
    from deployments.doctor import examine, show

    findings = examine(files or [], deep)
    typer.echo(show(findings))
    if any(each.level == "fail" for each in findings):
        raise typer.Exit(1)


def _typed(command: str, files: Sequence[Path]) -> str:
    return " ".join(["cereals", command, *map(str, files)])


def main() -> None:
    """Run the command line; errors of this project are shown as their text alone."""
    from tasks.telling.progress import told_to
    from tasks.telling.terminal import Terminal

    try:
        with told_to(Terminal()):
            app()
    except CerealsError as error:
        _fail(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        _fail(f"{error.filename}: {error.strerror}; look at the path, the disk and its permissions")


def _fail(message: str) -> NoReturn:
    typer.echo(f"cereals: {message}", err=True)
    sys.exit(1)
