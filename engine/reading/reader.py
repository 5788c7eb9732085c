"""From a program's text to a reading: interpret it, choose the call that counts, take it apart."""

from __future__ import annotations

import ast
import warnings
from typing import Any

from engine.reading import Method, NotPython, Reading, calls, fields, mentions, statements
from engine.reading.fields import Taker
from engine.reading.run import Exhausted, Run, Shot
from engine.reading.values import Function, Mapped, Model, Pipe, Scope, Unknown, tags_of

CONTRACT = ("load_pipeline", "generate")
"""Functions of a program that is called by whoever has loaded it, and not run as a script."""
LATER = ("refiner", "upscale")
"""Words in the names of models that work on another one's images."""


def reading_of(text: str) -> Reading:
    """What :func:`engine.reading.read` returns."""
    tree = parsed(text)
    run = Run()
    module = Scope(None)
    kept = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    served = all(name in kept for name in CONTRACT)
    module.state |= {
        "__name__": "program" if served else "__main__",
        "__file__": "program.py",
        "__doc__": ast.get_docstring(tree),
    }
    run.scopes.append(module)
    try:
        statements.execute(tree.body, module, run)
        if served:
            _serve(module, run)
    except Exhausted:
        run.note("program: it does more than is followed; what comes later is not read")
    except RecursionError:
        run.note("program: it is nested too deeply to be read whole")
    return _assembled(tree, run)


def parsed(text: str) -> ast.Module:
    """The syntax tree; raises NotPython."""
    try:
        with warnings.catch_warnings():
            # Its advice about escapes in texts is for the program's author.
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        raise NotPython(error.lineno or 1, error.msg) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise NotPython(1, str(error) or "the program is nested too deeply") from error


def _serve(module: Scope, run: Run) -> None:
    """Call a program's functions as the worker does: load, accelerate, generate."""
    node = ast.Pass(lineno=0, col_offset=0)
    given = Unknown("an argument of the call", given=True)

    def called(name: str, *args: Any, **keywords: Any) -> Any:
        function = module.state.get(name)
        if not isinstance(function, Function):
            return args[0] if args else None
        taken = {p.arg for p in (*function.node.args.args, *function.node.args.kwonlyargs)}
        kept = {key: value for key, value in keywords.items() if key in taken}
        return calls.call(function, args, Mapped(kept), node, run)

    pipe = called("load_pipeline", given)
    changed = called("accelerate", pipe)
    pipe = pipe if changed is None else changed
    called("generate", pipe, given, seed=given, image=given)


def _assembled(tree: ast.Module, run: Run) -> Reading:
    taker = Taker(list(run.notes))
    shot = _chosen(run, taker)
    if shot is None:
        taker.notes.append("pipeline: the program makes none")
        return Reading(unread=tuple(taker.notes), dead=mentions.dead(tree, run, ()))
    methods = _methods(shot, taker)
    size = {name: taker.whole(name, shot.keywords.items.get(name)) for name in ("height", "width")}
    items = shot.keywords.items
    if shot.keywords.open is not None and not shot.keywords.open.given:
        taker.notes.append(f"calls: some keywords of line {shot.line}: {shot.keywords.open.why}")
    scheduler, settings = fields.scheduler(shot.state["scheduler"], taker)
    live = tuple(sorted(methods, key=lambda method: (method.line, method.name)))
    return Reading(
        pipeline=taker.text("pipeline", shot.state["class"]),
        model_id=taker.text("model_id", shot.state["id"]),
        revision=taker.text("revision", shot.state.get("revision")),
        controlnet=taker.text("controlnet", shot.state.get("controlnet")),
        scheduler=scheduler,
        scheduler_settings=settings,
        steps=fields.steps(items, taker),
        guidance_scale=taker.number("guidance_scale", items.get("guidance_scale")),
        strength=taker.number("strength", items.get("strength")),
        dtype=fields.dtype(shot, taker),
        preprocessor=fields.preprocessor(shot.state["class"], items),
        negative_prompt=fields.negative_prompt(items, taker),
        methods=live,
        dead=mentions.dead(tree, run, live),
        unread=tuple(dict.fromkeys(taker.notes)),
        **size,
    )


def _methods(shot: Shot, taker: Taker) -> list[Method]:
    found = list(shot.methods.values())
    cast = fields.autocast(shot)
    if cast is not None:
        found.append(Method("autocast", {"dtype": cast}, shot.line))
    return found


def _chosen(run: Run, taker: Taker) -> Shot | None:
    """The call that counts: the last one, but for a model that works on another one's images."""
    if not run.shots:
        if not run.pipes:
            return None
        pipe = run.pipes[-1]
        taker.notes.append("calls: no pipeline is called")
        return Shot(pipe, Mapped(), dict(pipe.state), _lasting(pipe, run), None, 0)
    chosen = run.shots[-1]
    while (earlier := _source(chosen, run)) is not None:
        chosen = earlier
    pipes = {id(shot.pipe) for shot in run.shots}
    if len(pipes) > 1:
        count = len(pipes)
        taker.notes.append(
            f"calls: {count} pipelines are called, that of line {chosen.line} counts"
        )
    elif any(_differ(shot, chosen) for shot in run.shots):
        taker.notes.append(f"calls: they differ, the last one counts (line {chosen.line})")
    return chosen


def _source(shot: Shot, run: Run) -> Shot | None:
    """The call whose images a refiner or an upscaler is given."""
    words = f"{shot.state.get('id')} {shot.state.get('class')}".lower()
    if "denoising_start" not in shot.keywords.items and not any(word in words for word in LATER):
        return None
    tags = tags_of(*shot.keywords.items.values())
    numbers = sorted(int(tag.partition(":")[2]) for tag in tags if tag.startswith("call:"))
    earlier = [run.shots[number] for number in numbers if run.shots[number] is not shot]
    return earlier[-1] if earlier else None


def _differ(first: Shot, second: Shot) -> bool:
    names = ("num_inference_steps", "guidance_scale", "height", "width", "strength")
    one, other = first.keywords.items, second.keywords.items
    return any(repr(one.get(name)) != repr(other.get(name)) for name in names)


def _lasting(pipe: Pipe, run: Run) -> dict[str, Method]:
    """The methods of a pipeline that is never called."""
    found = dict(run.process)
    for part in pipe.state["parts"].values():
        if isinstance(part, Model):
            found |= part.state["active"]
    found |= pipe.state["active"]
    found.pop("$tgate", None)
    return found
