"""``+prune=``: remove what ended studies no longer need, and compiled code.

Of an ended study the pictures go that neither a trial of the front nor the baseline shows, and
the workers' logs. Results, programs, proposals and reports stay, so ``+trial=`` and the report
work as before. Nothing but files of the names that a study writes is ever removed, and no
symbolic link is followed.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import console
from engine.config import CONF, keys, read, unknown_key
from engine.errors import UsageError
from engine.search import lease
from engine.strategy import nearest

if TYPE_CHECKING:
    from engine.schema import PathsConfig

RESERVED = ("all", "cache")
"""What ``+prune=`` takes beside the names of studies."""
_PICTURE = re.compile(r"\d+-\d-(base|candidate)(-\d+)?\.png")
_SCORED = re.compile(r"\d+-\d+\.png")
_LOG = re.compile(r"(worker-\d+-\d+|forkserver)\.log")
_DEVICE = re.compile(r"(cpu|cuda)-[\w.-]+")
_VERSIONS = re.compile(r"torch.+-diffusers.+")


@dataclass(frozen=True)
class Unneeded:
    """Files that may go, and folders that go with all they hold."""

    files: tuple[Path, ...]
    folders: tuple[Path, ...] = ()

    @property
    def every(self) -> tuple[Path, ...]:
        """All files, those in the folders included."""
        return (*self.files, *(path for folder in self.folders for path in _below(folder)))

    def words(self) -> str:
        every = self.every
        return f"{len(every)} files, {sum(p.lstat().st_size for p in every) / 2**20:.1f} MB"

    def remove(self) -> None:
        """Remove them, and folders that are empty then; raises UsageError where it may not."""
        try:
            for path in self.files:
                path.unlink(missing_ok=True)
            for folder in self.folders:
                shutil.rmtree(folder)
        except OSError as error:
            raise UsageError(f"cannot remove {error.filename}: {error.strerror}") from None
        for folder in {path.parent for path in self.files}:
            with contextlib.suppress(OSError):
                folder.rmdir()


def paths_of(overrides: Sequence[str] = ()) -> PathsConfig:
    """The composed ``paths``, those of conf/local included, without starting anything."""
    import hydra

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return read(hydra.compose("config", overrides=list(overrides))).paths


def compile_cache(paths: PathsConfig) -> Path:
    """The folder of compiled code; in it are one folder for each kind of device and, in those, one
    for each set of versions."""
    return Path(paths.compile).expanduser() if paths.compile else _default_cache(paths)


def _default_cache(paths: PathsConfig) -> Path:
    return Path(paths.outputs) / ".cache" / "compile"


def command(arguments: Sequence[str]) -> None:
    """What ``+prune=NAME [yes=true] [paths.outputs=FOLDER]`` asks for; raises UsageError."""
    given, paths = {"prune": "", "yes": "false"}, []
    for text in arguments:
        name, _, value = text.lstrip("+").partition("=")
        if name in given:
            given[name] = value
        elif name.startswith("paths.") and name in keys():
            paths.append(text.lstrip("+"))
        elif name.startswith("paths."):
            raise unknown_key(name)
        else:
            raise UsageError(f"{text!r} does not go with +prune=; only yes=true and paths do")
    if not given["prune"]:
        raise UsageError("+prune= needs a study's name, all or cache; such as +prune=mine")
    if given["yes"].lower() not in ("true", "false"):
        raise UsageError(f"yes={given['yes']} is not allowed; type yes=true, or leave it out")
    run(given["prune"], paths, yes=given["yes"].lower() == "true")


def run(name: str, overrides: Sequence[str], *, yes: bool) -> None:
    """Show what would go or, with ``yes``, remove it.

    ``name`` is a study, ``all`` or ``cache``; ``overrides`` may set ``paths``. Raises UsageError
    for an unknown study and for one that is running or was interrupted.
    """
    paths = paths_of(overrides)
    sweeps = Path(paths.outputs) / "sweeps"
    if name == "cache":
        _refuse_running(sweeps)
        _settle("compiled code", compiled(compile_cache(paths)), yes)
    elif name == "all":
        _all(sweeps, yes)
    else:
        folder = _found(name, sweeps)
        with _ours(folder):
            _settle(name, unneeded(folder), yes)
    if not yes:
        given = "".join(f" {text}" for text in overrides)
        console.say(f"nothing was removed; +prune={name}{given} yes=true removes it")


def _all(sweeps: Path, yes: bool) -> None:
    names = studies(sweeps)
    if not names:
        console.say(f"there is no study in {sweeps}")
    for name in names:
        try:
            folder = _found(name, sweeps)
            with _ours(folder):
                _settle(name, unneeded(folder), yes)
        except UsageError as error:
            console.say(f"left alone: {error}")


def _settle(what: str, found: Unneeded, yes: bool) -> None:
    words = found.words()
    if yes:
        found.remove()
    console.say(f"{what}: {words} {'removed' if yes else 'would be removed'}")


def studies(sweeps: Path) -> list[str]:
    """Names of all studies in a folder."""
    return sorted(path.parent.name for path in sweeps.glob("*/study.json"))


def _found(name: str, sweeps: Path) -> Path:
    """The folder of a study that has ended and lies where it seems to lie."""
    known = studies(sweeps)
    if name not in known:
        raise UsageError(f"there is no study {name!r}{nearest(name, [*known, *RESERVED])}")
    folder = sweeps / name
    if folder.is_symlink():
        raise UsageError(f"study {name} is a link to {folder.resolve()}; prune it there")
    why = unended(folder)
    if why is not None:
        raise UsageError(f"study {name} {why}; only what has ended is pruned")
    return folder


def unended(folder: Path) -> str | None:
    """Why a study has not ended, in words; None where it has."""
    try:
        front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
        told = int(front["study"]["evaluations"])
    except FileNotFoundError:
        return "has not ended: it has no front.json yet"
    except (ValueError, KeyError, TypeError):
        return "has a damaged front.json"
    trials = list(_trials(folder))
    done = sum((trial / "result.json").is_file() for trial in trials)
    begun = sum((trial / "proposal.json").is_file() for trial in trials)
    if done > told or begun > done:
        return "went on after its last report and has not ended again"
    return None


@contextlib.contextmanager
def _ours(folder: Path) -> Iterator[None]:
    """Hold the study, so that nobody searches it meanwhile; refuses one that is searched."""
    try:
        held = lease.take(folder / "ledger.db", folder.name)
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}") from None
    with held:
        yield


def running(folder: Path) -> bool:
    """Whether a live process searches the study."""
    try:
        with _ours(folder):
            return False
    except UsageError:
        return True


def _refuse_running(sweeps: Path) -> None:
    for name in studies(sweeps):
        with _ours(sweeps / name):
            continue


def unneeded(folder: Path) -> Unneeded:
    """What ``keep=front`` leaves out of an ended study.

    Pictures of trials off the front; of those on it the ones that only the search used; the
    baseline's that were only scored; and the workers' logs, which are not sorted by trial.
    """
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    shown = {int(row["trial"]) for row in front["front"]}
    files: list[Path] = []
    for trial in _trials(folder):
        needed = _shown(trial) if int(trial.name) in shown else frozenset()
        if needed is not None:
            files += [p for p in _named(trial / "images", _PICTURE) if p.name not in needed]
    files += _named(folder / "baseline" / "scored", _SCORED)
    files += _named(folder / "logs", _LOG)
    return Unneeded(tuple(files))


def compiled(cache: Path) -> Unneeded:
    """The folders of compiled code, each of one kind of device and one set of versions. Whatever
    else lies in the folder stays, since ``paths.compile`` may name any."""
    return Unneeded(
        (),
        tuple(
            versions
            for device in _folders(cache)
            if _DEVICE.fullmatch(device.name)
            for versions in _folders(device)
            if _VERSIONS.fullmatch(versions.name)
        ),
    )


def _trials(folder: Path) -> Iterator[Path]:
    return (path for path in _folders(folder) if path.name.isdecimal())


def _shown(trial: Path) -> frozenset[str] | None:
    """Names of the pictures that a trial's result shows; None where it cannot be read."""
    try:
        data: Any = json.loads((trial / "result.json").read_text(encoding="utf-8"))
        images = [str(sample["image"]) for sample in data["samples"] if sample["image"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return frozenset(image.removeprefix("images/") for image in images)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a true folder, in order; nothing where it is absent or a link."""
    if folder.is_symlink() or not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted(found, key=lambda entry: entry.name)


def _folders(folder: Path) -> list[Path]:
    return [Path(e.path) for e in _entries(folder) if e.is_dir(follow_symlinks=False)]


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """True files of a folder whose whole name fits."""
    fitting = (e for e in _entries(folder) if pattern.fullmatch(e.name))
    return [Path(entry.path) for entry in fitting if entry.is_file(follow_symlinks=False)]


def taken(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.lstat().st_size for path in _below(folder))


def _below(folder: Path) -> Iterable[Path]:
    """All that is no folder below a folder; links are named and not followed."""
    for place, _folders, names in os.walk(folder):
        yield from (Path(place, name) for name in names)
