"""Chaos: a campaign that is disturbed again and again ends as the undisturbed one.

    python tests/helpers/chaos.py --kills 100 --seed 1 [--damage 0.3] [--folder FOLDER]

Most attempts are killed: before a random write in the campaign's folder, which finds the narrow windows around commits,
or after a random time. Some meet a write that fails, or a disk that is full from then on. Before a share of them files
are damaged. Prints where the kills hit and all that went wrong; the log in the folder tells every attempt.
"""

import argparse
import errno
import json
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from chaos_compare import differences, unnoticed
from chaos_damage import damage, remedy, remove
from chaos_process import Fuse, Outcome, attempt
from prefect.testing.utilities import prefect_test_harness
from small_campaign import small_settings

from cereals_core.settings import CampaignSettings
from flows.campaign import run_campaign
from tasks import training
from tasks.pages.text import table
from tasks.running import stage

KILLS_A_CAMPAIGN = 40
STAGES_BETWEEN = 1.0
"""A disturbance comes after so many stages, on average, beside what a start takes."""
MOMENTS = ("looking", "working", "committing")


def chaos_settings(folder: Path) -> CampaignSettings:
    """A small campaign that has every stage, several shards and several epochs."""
    small = small_settings(folder, information="vote_entropy", dropout_samples=3)
    return small.model_copy(update={"stop": small.stop.model_copy(update={"rounds": 3})})


def place_of(last: str) -> tuple[str, str]:
    """Stage (or file of the campaign itself) and moment of an operation, as `Outcome.last` tells it."""
    what, _, path = last.partition(" ")
    parts = [part for part in path.split("/") if part not in ("", "rounds") and not part.isdigit()]
    if not parts:
        return ("(folders)" if path else "(start-up)"), "looking"
    unfinished = re.fullmatch(r"\.(.+?)(\.\w{8})?\.new", parts[0])
    if unfinished or (len(parts) == 1 and parts[0] in ("lock", "settings.json", "ledger.parquet", "flow-runs.json")):
        return (unfinished[1] if unfinished else parts[0]), "looking" if what == "open" else "working"
    stage_name = parts[0].removeprefix(".").split(".")[0]
    if not parts[0].startswith("."):
        return stage_name, "committing" if what == "rename" else "looking"
    in_commit = (len(parts) == 1 and what == "rename") or "manifest" in parts[-1] or parts[0].endswith(".stale")
    return stage_name, "committing" if in_commit else "working"


@dataclass
class Chaos:
    """Runs of one campaign, disturbed, and what they gave. `reference` ran `undisturbed`."""

    folder: Path
    random: Random
    share_damaged: float
    reference: CampaignSettings
    undisturbed: Outcome
    kills: int = 0
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def fuse(self) -> Fuse:
        """What disturbs the next attempt, mostly within the next stages."""
        stages = 10 * self.reference.stop.rounds / STAGES_BETWEEN
        kind = self.random.choices(("write", "time", "broken", "full"), (10, 8, 1, 2))[0]
        if kind == "time":
            return Fuse(seconds=self.random.expovariate(stages / self.undisturbed.elapsed_s))
        count = 1 + int(self.random.expovariate(stages / self.undisturbed.writes))
        return Fuse(count=count, errno={"write": 0, "broken": errno.EIO, "full": errno.ENOSPC}[kind])

    def survive(self, number: int, most_kills: int) -> None:
        """Bring a campaign to its end, disturbed until there are so many kills in all, and compare it.

        Of three campaigns the second one lends its products, and the third one borrows them.
        """
        settings = chaos_settings(self.folder / f"campaign-{number}")
        shared = self.folder / f"shared-{number // 3}" if number % 3 else None
        refusal, done = None, False
        while not done:
            harmed = self._harm(settings.path)
            fuse = self.fuse() if self.kills < most_kills else Fuse()
            outcome = self._attempt(settings, shared, fuse)
            self.log(f"campaign {number}: {', '.join(harmed) or 'nothing damaged'} -> {told(outcome)}")
            if outcome.killed:
                self.kills += 1
                self.places[place_of(outcome.last)] += 1
            elif outcome.returned is None:
                refusal = self._judge(settings.path, outcome, fuse, refusal, harmed)
            done = outcome.returned is not None
            self.happened["write tried again"] += done and fuse.errno == errno.EIO and outcome.writes >= fuse.count
        self._compare(settings, number)

    def _attempt(self, settings: CampaignSettings, shared: Path | None, fuse: Fuse) -> Outcome:
        return attempt(lambda: run_campaign(settings, shared), settings.path, fuse, self.folder / "attempts.log")

    def _harm(self, folder: Path) -> list[str]:
        if self.random.random() >= self.share_damaged or not folder.exists():
            return []
        harmed = [damage(folder, self.random) for _ in range(self.random.choice((1, 1, 2, 3)))]
        shutil.rmtree(self.folder / "before", ignore_errors=True)
        shutil.copytree(folder, self.folder / "before")
        self.happened.update(each.split(" ")[0] for each in harmed)
        return harmed

    def _judge(self, folder: Path, outcome: Outcome, fuse: Fuse, refusal: str | None, harmed: list[str]) -> str | None:
        """Do what the error says; one that says nothing useful is a violation, after which the campaign starts anew."""
        error = outcome.error or ""
        if outcome.is_ours and fuse.errno and os.strerror(fuse.errno) in error and str(folder) in error:
            self.happened["disk full" if fuse.errno == errno.ENOSPC else "disk broken"] += 1
            return None
        target = remedy(error, folder) if outcome.is_ours and error != refusal else None
        if target is not None and target.exists():
            self.happened["remedy"] += 1
            self.log(f"remedy: remove {target.relative_to(folder)}")
            remove(target)
            return error
        kept = self.folder / f"violation-{len(self.violations)}"
        shutil.move(self.folder / "before" if harmed else folder, kept)
        self._note(f"after {harmed} and {fuse}: {told(outcome)}; the campaign is kept as {kept}\n{outcome.trace}")
        shutil.rmtree(folder, ignore_errors=True)
        return None

    def _compare(self, settings: CampaignSettings, number: int) -> None:
        """Compare the campaign that ended; and again when products that nobody read have been made again."""
        found = differences(self.reference.path, settings.path)
        invalid = unnoticed(settings.path)
        if invalid and not found:
            self.happened.update("damaged and never read: " + folder.name for folder in invalid)
            for folder in invalid:
                remove(folder)
            self._attempt(settings, None, Fuse())
            found = [*differences(self.reference.path, settings.path), *map(str, unnoticed(settings.path))]
        if found:
            self._note(f"campaign {number} differs: {'; '.join(found)}")
        else:
            shutil.rmtree(settings.path)

    def _note(self, violation: str) -> None:
        self.violations.append(violation)
        self.log(f"VIOLATION {violation}")

    def log(self, line: str) -> None:
        """Note what happened, for whoever looks for the cause of a violation."""
        with (self.folder / "chaos.log").open("a") as log:
            log.write(f"{self.kills} {line}\n")

    def summary(self) -> str:
        """Where the kills hit, and one line."""
        names = sorted({name for name, _ in self.places}, key=lambda name: -sum(self._hits(name)))
        total = [str(sum(self.places[name, moment] for name in names)) for moment in MOMENTS]
        rows = [*([name, *map(str, self._hits(name))] for name in names), ["all", *total]]
        happened = ", ".join(f"{name} {count}" for name, count in sorted(self.happened.items()))
        end = f"{len(self.violations)} VIOLATIONS" if self.violations else "everything equal"
        lines = [table(["killed in", *MOMENTS], rows), f"besides: {happened or 'nothing'}", *self.violations]
        return "\n".join([*lines, f"{self.kills} kills survived, {end}"])

    def _hits(self, name: str) -> list[int]:
        return [self.places[name, moment] for moment in MOMENTS]


def told(outcome: Outcome) -> str:
    """How an attempt ended, in a line."""
    if outcome.killed:
        return f"killed after {outcome.elapsed_s:.1f} s: {outcome.last}"
    return "hung" if outcome.hung else outcome.error or outcome.returned or ""


def survive(folder: Path, kills: int, seed: int, share_damaged: float) -> Chaos:
    """So many kills, over as many campaigns as it takes."""
    training.CHECKPOINT_EVERY_S = -1  # after every epoch
    stage.RETRIED_AFTER_S[:] = [0.0, 0.1]
    reference = chaos_settings(folder / "reference")
    undisturbed = attempt(lambda: run_campaign(reference), reference.path, Fuse(), folder / "attempts.log")
    assert undisturbed.returned is not None, undisturbed.error
    chaos, number = Chaos(folder, Random(seed), share_damaged, reference, undisturbed), 0
    while chaos.kills < kills:
        chaos.survive(number, min(kills, chaos.kills + KILLS_A_CAMPAIGN))
        number += 1
    return chaos


def serve(settings: str, log: str) -> None:
    """Attempts at a campaign (its settings as JSON): a fuse a line comes in, an outcome a line goes out."""
    training.CHECKPOINT_EVERY_S = -1
    campaign = CampaignSettings.model_validate_json(settings)
    for line in sys.stdin:
        outcome = attempt(lambda: run_campaign(campaign), campaign.path, Fuse(**json.loads(line)), Path(log))
        print(json.dumps(asdict(outcome)), flush=True)


def main() -> int:
    """As the head of this file says; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--damage", type=float, default=0.3, help="share of the attempts that find damaged files")
    parser.add_argument("--folder", type=Path, help="where to work and to leave what went wrong; else a temporary one")
    given = parser.parse_args()
    folder = (given.folder or Path(tempfile.mkdtemp(prefix="chaos-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with nullcontext() if "PREFECT_API_URL" in os.environ else prefect_test_harness(server_startup_timeout=120):
        chaos = survive(folder, given.kills, given.seed, given.damage)
    print(chaos.summary())
    return 1 if chaos.violations else 0


if __name__ == "__main__":
    sys.exit(main())
