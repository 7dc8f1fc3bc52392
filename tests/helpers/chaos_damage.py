"""Damage to files of a campaign, and what an error tells to do about it."""

import re
import shutil
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from random import Random


def truncate(file: Path, random: Random) -> None:
    """Cut the file somewhere."""
    content = file.read_bytes()
    file.write_bytes(content[: random.randrange(max(len(content), 1))])


def flip(file: Path, random: Random) -> None:
    """Turn one bit over."""
    content = bytearray(file.read_bytes())
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
        file.write_bytes(bytes(content))


def empty(file: Path, random: Random) -> None:
    """Leave nothing in it."""
    file.write_bytes(b"")


def scribble(file: Path, random: Random) -> None:
    """Overwrite a part, the size stays."""
    content = bytearray(file.read_bytes())
    start = random.randrange(max(len(content), 1))
    stop = min(start + 64, len(content))
    content[start:stop] = random.randbytes(stop - start)
    file.write_bytes(bytes(content))


def delete(file: Path, random: Random) -> None:
    """Remove it."""
    file.unlink()


def delete_folder(file: Path, random: Random) -> None:
    """Remove the folder it is in."""
    shutil.rmtree(file.parent)


KINDS: tuple[Callable[[Path, Random], None], ...] = (truncate, flip, flip, empty, scribble, delete, delete_folder)


def damage(folder: Path, random: Random) -> str:
    """Damage one file of the campaign, all names of files being equally likely; says what was done."""
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            by_name[file.name].append(file)
    if not by_name:
        return "nothing to damage"
    file = random.choice(by_name[random.choice(sorted(by_name))])
    kind = random.choice(KINDS)
    if kind is delete_folder and file.parent == folder:
        kind = delete
    kind(file, random)
    return f"{kind.__name__} {file.relative_to(folder)}"


def remedy(error: str, folder: Path) -> Path | None:
    """What the error says to remove, if it names a place in the campaign's folder and says so."""
    named = [Path(found.rstrip(".,;:)")) for found in re.findall(re.escape(str(folder)) + r"/[^\s,;:()]*", error)]
    if not named:
        return None
    told = re.findall(r"remove (" + re.escape(str(folder)) + r"/[^\s,;:()]*)", error)
    if told:
        return Path(told[0])
    if re.search("remove (its|the) folder", error):
        return named[0].parent if named[0].is_file() else named[0]
    return named[0] if re.search("remove (it|that)", error) else None


def remove(target: Path) -> None:
    """Remove a file or a folder."""
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
