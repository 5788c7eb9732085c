"""An argument vector: flags and overrides, spelled as Hydra wants them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from engine.config import CONF, keys
from engine.errors import UsageError
from engine.strategy import nearest

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
APPENDED = ("sweep", "experiment", "debug", "bench")
"""Groups outside the defaults list: Hydra wants a plus before them."""
HIDDEN = ("hydra", "local", "preset")
"""Folders of conf/ that are no groups to choose from."""


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
    typed = [part for text in call.overrides for part in _unfolded(text)]
    spelled = (_spelled(text, multirun) for text in typed)
    overrides = [text for text in spelled if text is not None]
    call = Call(call.flags, tuple(_in_order(overrides)))
    if call.shows:
        return call
    if call.value("bench") is not None:
        return _benched(call, now)
    implied = any(re.match(r"\+(sweep=|experiment=ablation_)", text) for text in call.overrides)
    if implied and not multirun:
        call = Call((*call.flags, "--multirun"), call.overrides)
    if (implied or multirun) and call.value("study") in (None, "null"):
        model = re.sub(r"[^\w.-]+", "-", call.value("model") or "sd-mini").strip("-")
        name = f"study={model}-{now:%Y%m%d-%H%M%S}"
        call = Call(call.flags, (*call.overrides, name))
    return call


def _benched(call: Call, now: datetime) -> Call:
    """A benchmark is one run of its own, whatever model it measures; it gets a name."""
    if call.value("sweep") is not None:
        raise UsageError("+bench= runs its own studies; leave out +sweep=")
    if call.value("bench.name") in (None, "null"):
        return Call(call.flags, (*call.overrides, f"bench.name=bench-{now:%Y%m%d-%H%M%S}"))
    return call


def _in_order(overrides: list[str]) -> list[str]:
    """The sweep behind debug=: of groups that set the same key the last one counts, and what a
    sweep is, debug= must not change."""
    sweeps = [text for text in overrides if text.startswith("+sweep=")]
    rest = [text for text in overrides if text not in sweeps]
    debug = [index for index, text in enumerate(rest, 1) if text.startswith("+debug=")]
    return [*rest[: debug[-1]], *sweeps, *rest[debug[-1] :]] if debug else overrides


def _unfolded(text: str) -> list[str]:
    """What stands for several settings: baseline=FILE.py is a program of the user's own."""
    name, _, value = text.partition("=")
    if name.lstrip("+") == "baseline" and value.strip("'\"").endswith(".py"):
        return ["baseline=file", f"baseline.program={_quoted(value)}"]
    if name.lstrip("+") == "data" and value not in ("", "null"):
        return [f"data={_quoted(value)}"]
    return [text]


def _spelled(text: str, multirun: bool) -> str | None:
    plus, key, equals, value = re.fullmatch(r"(\+*)([^=]*)(=?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
    if not equals:
        return text
    if key == "debug" and value.lower() in ("true", "false"):
        # Hydra takes debug=true for a group option, since conf/debug/ is a group.
        return "+debug=on" if value.lower() == "true" else None
    if key == "model.call":
        # Its keywords are the pipeline's, so the composed config cannot know them all.
        return f"++{key}={value}"
    if key in APPENDED:
        return f"+{key}={value}"
    if value != "null" and (key == "request" or (key == "prompt" and not multirun)):
        return f"{key}={_quoted(value)}"
    if plus == "+" and (key in keys() or key.split(".")[0] in groups()):
        return f"{key}={value}"
    return text


def _quoted(value: str) -> str:
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        return value
    # A backslash counts only before a quote in Hydra's grammar, and at the end of the text.
    doubled = re.sub(r"(\\+)(?='|$)", r"\1\1", value).replace("'", r"\'")
    return f"'{doubled}'"


def groups() -> set[str]:
    """The groups of conf/ that a command line may choose from."""
    return {path.name for path in CONF.iterdir() if path.is_dir() and path.name not in HIDDEN}
