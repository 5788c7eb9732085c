"""``+request="..."``: what was asked in plain language as settings, shown before work starts.

This is the one place where a request enters a run: :func:`asked` turns it into overrides for the
runs that exist anyway. :func:`specification` says what it was taken for, for whoever answers it in
another way.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Sequence

from engine import console
from engine.call import Call
from engine.errors import UsageError
from engine.specification import Specification, overrides
from engine.strategy import nearest

GROUPS = ("technique",)
"""Keys that stand for all that is below them: typed, they leave nothing of the request's."""


def asked(call: Call) -> Call:
    """The call with the settings of its request, which stand below what was typed; other calls as
    they are. Prints what the request was taken for."""
    text = _text(call)
    if text is None:
        return call
    spec = specification(text, call.overrides)
    given = overrides(spec)
    typed = {_key(text) for text in call.overrides}
    kept = [text for text in given if not _typed(_key(text), typed)]
    if not call.shows:
        _show(spec, [text for text in given if text not in kept], call)
        line = shlex.join(["python", "-m", "engine", *kept, *_others(call)])
        console.say(f"which is: {line}")
    return Call(call.flags, (*kept, *call.overrides))


def specification(text: str, typed: Sequence[str] = ()) -> Specification:
    """What a request asks for; a model among the typed overrides wins over one that it names.

    A language model that the overrides name reads what the rules cannot. Raises UsageError for
    what cannot be understood.
    """
    from engine import catalogue
    from engine.phrasing import by_rules

    found = [value.partition("=")[2] for value in typed if _key(value) == "model"]
    if found and found[-1] not in catalogue.names():
        raise UsageError(
            f"model={found[-1]} is no single model of the catalogue, and +request= takes one"
            f"{nearest(found[-1], catalogue.names())}"
        )
    try:
        return by_rules(text, found[-1] if found else None, wins=bool(found))
    except UsageError as error:
        from engine.agent.reader import by_configured
        from engine.precheck import precheck

        # A language model is asked before the whole call is checked and composed.
        precheck(Call((), tuple(t for t in typed if _key(t).partition(".")[0] == "llm")))
        read = by_configured(text, str(error), typed)
        if read is None:
            raise
        return read


def _text(call: Call) -> str | None:
    """The request as it was typed, without the quotes that Hydra's grammar may have around it."""
    value = call.value("request")
    if value in (None, "null"):
        return None
    text = value.strip() if value else ""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        try:
            text = str(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            text = text[1:-1]
    if not text:
        raise UsageError('+request= is empty; type +request="SDXL twice as fast"')
    return text


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _typed(key: str, typed: set[str]) -> bool:
    return key in typed or any(key.startswith(f"{group}.") and group in typed for group in GROUPS)


def _others(call: Call) -> list[str]:
    return [text for text in call.overrides if _key(text) != "request"]


def _show(spec: Specification, dropped: list[str], call: Call) -> None:
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows(spec):
        table.add_row(name, value)
    console.show(table)
    for note in spec.notes:
        console.say(f"note: {note}")
    for text in dropped:
        mine = next((t for t in call.overrides if _key(t) == _key(text)), "technique=")
        # The model has a note of its own, and a command that is repeated says the same again.
        if _key(text) != "model" and mine.lstrip("+") != text.lstrip("+"):
            console.say(f"note: {mine} of the command line stands in place of {text}")


def rows(spec: Specification) -> list[tuple[str, str]]:
    """A specification as lines of a table: what is asked, and what is left free."""
    steps = "free" if spec.steps is None else str(spec.steps)
    size = "as published" if spec.height is None else f"{spec.width} x {spec.height} pixels (w x h)"
    found = [
        ("request", " ".join(spec.request.split())),
        ("model", f"{spec.model} ({spec.pipeline})" if spec.pipeline else spec.model),
        ("sampler", spec.scheduler or "free"),
        ("steps", f"{steps}, must stay" if spec.keep_steps else steps),
        ("techniques", _named(spec) or "free"),
        ("size", size),
        ("number format", spec.dtype or "free"),
        ("hardware", spec.hw or "this machine"),
        ("target", _target(spec)),
        ("loss of quality", "any" if spec.max_loss is None else f"at most {spec.max_loss:.1%}"),
    ]
    if spec.guidance_scale is not None:
        found.append(("guidance scale", f"{spec.guidance_scale:g}"))
    return found


def _named(spec: Specification) -> str:
    parts = []
    for name, settings in spec.methods.items():
        stated = " ".join(f"{gene}={value}" for gene, value in settings.items())
        parts.append(f"{name} {stated}".strip())
    return ", ".join(parts)


def _target(spec: Specification) -> str:
    if spec.target is None:
        return "none"
    value = f"{spec.target.value:g}"
    if spec.target.seconds_base is not None:
        takes, share = spec.target.seconds_base, spec.target.speedup
        return f"at most {value} s an image where it takes {takes:g} s today: {share:.4g}x"
    words = {"speedup": f"at least {value} times as fast", "seconds": f"at most {value} s an image"}
    return words.get(spec.target.kind, f"at most {value} GiB of memory")
