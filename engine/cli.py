"""The command line: spelling, checks before Hydra starts, Hydra, and errors in one line.

Nothing heavy is imported before a task runs, so that ``--help``, ``--cfg job`` and listings stay
quick.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import CONF, keys, unknown_key
from engine.errors import GoalMissed, TrialError, UsageError
from engine.strategy import find, nearest

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

HELP = """\
DiffAgent finds the fastest way to run a diffusion model without losing quality.

  python -m engine                                     the composed techniques on the embedded model
  python -m engine 'technique=[sampler,deepcache]' technique.deepcache.interval=3
  python -m engine +sweep=ga                           the main job: search; front, report, program
  python -m engine model=sd15 hw=cuda +sweep=ga        the same on a real model
  python -m engine +sweep=ga study=mine search.minutes=30
                                                       a named study; the same command resumes it
  python -m engine -m technique=deepcache,tome,tgate   plain grid
  python -m engine +trial=mine/17                      run a trial again
  python -m engine +trial=mine/17 +program=true        print its program
  python -m engine +trial=mine/17 +diff=baseline       the lines that differ from the baseline's
  python -m engine +list=strategies                    or models, or hw
  python -m engine +doctor                             what this machine can do, and the remedies

Any key of conf/ can be set as key=value; --cfg job shows them all, debug=true shows tracebacks.
Hydra's own flags: --hydra-help. Quote values with brackets or spaces, as above.
"""

SWITCHES = {
    "--hydra-help", "--version", "--run", "-r", "--multirun", "-m", "--resolve",
    "--shell-completion", "-sc",
}  # fmt: skip
VALUED = {
    "--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn",
    "--config-dir", "-cd", "--info", "-i",
}  # fmt: skip
CHOICES = {
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
}
LONG = {"-c": "--cfg", "-i": "--info"}
MULTIRUN = {"--multirun", "-m"}
SHOWS = {"--cfg", "--info", "--hydra-help", "--version", "--shell-completion", "-sc"}
"""Flags that show something and run nothing."""
OTHER_CONF = {"--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"}
"""Flags that bring in configs which the checks before Hydra cannot see."""
APPENDED = ("sweep", "experiment", "debug")
"""Groups outside the defaults list: Hydra wants a plus before them."""
FREE_SPACE = 200 * 2**20
"""Bytes that must be free where results are written."""


@dataclass(frozen=True)
class Call:
    """An argument vector in order: Hydra's flags, then the overrides."""

    flags: tuple[str, ...]
    overrides: tuple[str, ...]

    @property
    def shows(self) -> bool:
        return any(flag.partition("=")[0] in SHOWS for flag in self.flags)

    @property
    def debug(self) -> bool:
        return any(text.startswith("+debug=") for text in self.overrides)

    def value(self, name: str) -> str | None:
        """The last value given for a key, as typed."""
        found = [text for text in self.overrides if text.lstrip("+").partition("=")[0] == name]
        return found[-1].partition("=")[2] if found else None


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    debug = any(re.fullmatch(r"\+*debug=(true|on|tiny)", text, re.I) for text in arguments)
    try:
        if {"--help", "-h"} & set(arguments):
            print(HELP, end="")
            return 0
        call = parse(arguments)
        shown = _listing(call)
        if shown is not None:
            return shown
        call = normalised(call, datetime.now())
        if not {"-sc", "--shell-completion"} & set(call.flags):
            precheck(call)
        _hydra(call)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away, as in `| head`; the interpreter must not write again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"error: {_line(error)}", file=sys.stderr)
        return _status(error)
    return 0


def parse(arguments: Sequence[str]) -> Call:
    """Tell Hydra's flags from overrides, in any order; raises UsageError for an unknown flag."""
    flags: list[str] = []
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        text = rest.pop(0)
        name, equals, value = text.partition("=")
        name = LONG.get(name, name)
        if not text.startswith("-"):
            overrides.append(text)
        elif text in SWITCHES:
            flags.append(text)
        elif name in VALUED:
            if not equals and rest and "=" not in rest[0]:
                value = rest.pop(0)
            elif not equals and name == "--info":
                value = "all"
            flags += [name, _checked_flag(name, value)]
        else:
            known = [flag for flag in SWITCHES | VALUED | {"--help"} if flag[1] == "-"]
            raise UsageError(f"unknown flag {text!r}{nearest(text, known)}")
    return Call(tuple(flags), tuple(overrides))


def _checked_flag(name: str, value: str) -> str:
    choices = CHOICES.get(name, ())
    if not value:
        listed = f": one of {', '.join(choices)}" if choices else ""
        raise UsageError(f"flag {name} needs a value{listed}")
    if choices and value not in choices:
        raise UsageError(f"{name} {value} is not allowed{nearest(value, choices)}")
    return value


def normalised(call: Call, now: datetime) -> Call:
    """Hydra's spelling: pluses, quotes, multirun where a sweep implies it, a name for a study."""
    multirun = bool(MULTIRUN & set(call.flags))
    spelled = (_spelled(text, multirun) for text in call.overrides)
    overrides = [text for text in spelled if text is not None]
    call = Call(call.flags, tuple(overrides))
    if call.shows:
        return call
    implied = any(re.match(r"\+(sweep=|experiment=ablation_)", text) for text in call.overrides)
    if implied and not multirun:
        call = Call((*call.flags, "--multirun"), call.overrides)
    if (implied or multirun) and call.value("study") in (None, "null"):
        model = re.sub(r"[^\w.-]+", "-", call.value("model") or "sd-mini").strip("-")
        name = f"study={model}-{now:%Y%m%d-%H%M%S}"
        call = Call(call.flags, (*call.overrides, name))
    return call


def _spelled(text: str, multirun: bool) -> str | None:
    plus, key, equals, value = re.fullmatch(r"(\+*)([^=]*)(=?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if not equals:
        return text
    if key == "debug" and value.lower() in ("true", "false"):
        # Hydra takes debug=true for a group option, since conf/debug/ is a group.
        return "+debug=on" if value.lower() == "true" else None
    if key in APPENDED:
        return f"+{key}={value}"
    if key == "request" or (key == "prompt" and not multirun and value != "null"):
        return f"{plus if key == 'request' else ''}{key}={_quoted(value)}"
    if plus == "+" and (key in keys() or key.split(".")[0] in _groups()):
        return f"{key}={value}"
    return text


def _quoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    # A backslash counts only before a quote in Hydra's grammar, and at the end of the text.
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{doubled}'"


def precheck(call: Call) -> None:
    """Refuse what can be known to be wrong before Hydra composes anything."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser = OverridesParser.create()
    multirun = bool(MULTIRUN & set(call.flags))
    foreign = any(flag.partition("=")[0] in OTHER_CONF for flag in call.flags)
    overrides: list[Override] = []
    for text in call.overrides:
        if "=" not in text and not text.startswith("~"):
            raise UsageError(f"{text!r} is no setting; type key=value, such as model=sd-mini")
        try:
            overrides.append(parser.parse_override(text))
        except HydraException as error:
            raise UsageError(
                f"cannot read {text!r}: {_line(error)}; close brackets and quotes, and quote "
                "special characters, such as \"key='a, b'\""
            ) from error
        if overrides[-1].is_sweep_override() and not call.shows and not multirun:
            raise UsageError(
                f"{text!r} has several values; add -m to run each, or write key=[a,b] for a list"
            )
        foreign |= overrides[-1].key_or_group == "hydra.searchpath"
    for override in overrides:
        name = override.key_or_group
        if not re.match(r"hydra([./]|$)", name) and not override.is_delete():
            _check(override, name, foreign)
    _check_selection(overrides)
    if not call.shows:
        check_outputs(Path((call.value("paths.outputs") or "outputs").strip("'\"")))


def _check(override: Override, name: str, foreign: bool) -> None:
    head, *tail = name.removeprefix("baseline.").split(".")
    schema = keys()
    if name in _groups():
        options = sorted(path.stem for path in (CONF / name).glob("*.yaml"))
        for value in _names(_values(override)):
            if name == "technique":
                find(value)
            elif value not in options and not foreign:
                raise UsageError(f"unknown {name} {value!r}{nearest(value, options)}")
    elif head == "technique" and tail:
        for value in _values(override):
            genes = {".".join(tail[1:]): value} if tail[1:] else value
            if not isinstance(genes, dict):
                raise UsageError(f"{name}={value} names no gene; type {name}.GENE=VALUE")
            find(tail[0]).checked(genes)
    elif name in schema:
        for value in _values(override):
            if not (isinstance(value, str) and "${" in value):
                schema[name].checked(value)
    elif not (foreign and override.is_add()):
        raise unknown_key(name)


def _check_selection(overrides: Sequence[Override]) -> None:
    """Techniques that exclude each other, and genes of a technique that is not composed."""
    from engine.genome import canonical

    selected = composed_by_default()
    if any(o.key_or_group == "technique" for o in overrides):
        selected = set()
    known = True
    for override in overrides:
        if override.key_or_group == "technique":
            for value in _values(override):
                names = list(_names([value]))
                doubled = next((n for n in names if names.count(n) > 1), None)
                if doubled:
                    raise UsageError(f"technique {doubled} is named twice; name it once")
                given = {name: _given(overrides, name) for name in names}
                canonical(given)
                selected |= set(names)
        # An experiment may compose techniques too.
        known &= override.key_or_group != "experiment"
    for override in overrides:
        head, *tail = override.key_or_group.split(".")
        if head == "technique" and tail and known and tail[0] not in selected:
            both = ",".join([*sorted(selected), tail[0]])
            raise UsageError(
                f"{override.key_or_group} is set, but technique {tail[0]} is not composed; "
                f"add 'technique=[{both}]'"
            )


def _given(overrides: Sequence[Override], technique: str) -> dict[str, Any]:
    """The genes that the command line sets for a technique to one value each."""
    found = {}
    for override in overrides:
        head, _, gene = override.key_or_group.rpartition(".")
        if head == f"technique.{technique}" and not override.is_sweep_override():
            found[gene] = _plain(override.value())
    return found


def composed_by_default() -> set[str]:
    """The techniques of the defaults list of ``conf/config.yaml``."""
    from omegaconf import OmegaConf

    entries = OmegaConf.to_container(OmegaConf.load(CONF / "config.yaml").defaults)
    assert isinstance(entries, list)
    return {n for e in entries if isinstance(e, dict) for n in e.get("technique") or []}


def _values(override: Override) -> Iterator[Any]:
    """The values that an override may take; an interval sweep is left to its sweeper."""
    if not override.is_sweep_override():
        yield _plain(override.value())
    elif override.is_discrete_sweep():
        yield from map(_plain, override.sweep_iterator())


def _plain(value: Any) -> Any:
    return value.text if hasattr(value, "text") else value


def _names(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        yield from _names(map(_plain, value)) if isinstance(value, list) else [str(value)]


def _groups() -> set[str]:
    return {path.name for path in CONF.iterdir() if path.is_dir() and path.name != "hydra"}


def check_outputs(folder: Path) -> None:
    """Refuse a folder of results that cannot be written or has less than 200 MB free."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write to {folder} ({place}); type paths.outputs=FOLDER")
    free = shutil.disk_usage(place).free
    if free < FREE_SPACE:
        raise UsageError(
            f"only {free / 2**20:.0f} MB free at {folder}, {FREE_SPACE / 2**20:.0f} MB needed; "
            "free some or type paths.outputs=FOLDER"
        )


def _listing(call: Call) -> int | None:
    """Answer ``+list=`` and ``+doctor``; None when the call asks for neither."""
    asked = [t for t in call.overrides if re.match(r"\+?(list(=|$)|doctor($|=true$))", t, re.I)]
    if not asked:
        return None
    if len(call.overrides) > 1 or call.flags:
        raise UsageError(f"{asked[0]} stands alone; leave out the other arguments")
    if asked[0].lstrip("+").startswith("list"):
        from engine.listing import show

        show(asked[0].partition("=")[2])
        return 0
    from engine.doctor import show as show_doctor

    return show_doctor()


def _hydra(call: Call) -> None:
    """Compose and run through Hydra; the task's own exception is raised, not Hydra's account."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    failures: list[Exception] = []

    def task(cfg: DictConfig) -> Any:
        settings = HydraConfig.get()
        try:
            from engine.app import run

            return run(cfg, list(settings.overrides.task))
        except Exception as error:
            if settings.mode != RunMode.RUN:
                raise
            # Hydra would print lines of its own about a single job that failed.
            failures.append(error)
            return None

    sys.path.append(str(Path(__file__).resolve().parent / "plugins"))
    sys.argv = [sys.argv[0], *call.flags, *call.overrides]
    quiet_libraries()
    # Makes Hydra raise its errors, so that they are reported in one place and one way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    if failures:
        raise failures[0]


def quiet_libraries() -> None:
    """Leave out the libraries' advice about parts that are not used here, such as torchvision."""
    import logging

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _line(error: Exception) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, UsageError | GoalMissed):
        return text
    if isinstance(error, TrialError):
        return f"failed at {error.stage}: {text}"
    absent = re.match(r"Could not override '(?!hydra)([\w.]+)'", text)
    if absent:
        return f"{absent[1]} does not exist with the options that were chosen; --cfg job shows all"
    if type(error).__module__.startswith(("hydra.", "omegaconf.")):
        return text if len(text) <= 300 else text[:300] + "..."
    return f"{type(error).__name__}: {text} (debug=true shows where)"


def _status(error: Exception) -> int:
    wrong_input = isinstance(error, UsageError) or type(error).__module__.startswith("hydra.")
    return 2 if wrong_input or type(error).__module__.startswith("omegaconf.") else 1
