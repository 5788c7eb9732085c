"""A script of somebody else's as a program with load_pipeline() and generate().

This file is copied as it stands in front of the script's text (``engine.diffbench.foreign``) and
runs where the script runs, in the sandbox: it must not use anything of ``engine``.

The script runs twice. First through to its end, while every call of a pipeline is answered with
blank pictures, to learn how many calls there are. Then up to its last call, in which it is held:
whatever it has opened around the call (autocast, a helper that it switches off afterwards) stays
open, and every request of the scorer is answered there by the same pipeline and the same method
with the script's own keywords, but for prompt, seed and picture.
"""

from __future__ import annotations

import functools
import inspect
import linecache
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

SOURCE = ""
NAME = "program.py"
REPLACED = {"prompt_2", "prompt_3", "latents"}
"""Keywords that would bring the script's own prompt or noise into another request."""
PICTURES = ("image", "control_image")


class Script:
    """One script, its calls, and the call in which it is held."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.calls = 0
        self.hold_at: int | None = None
        self.pipe: Any = None
        self.failure: BaseException | None = None
        self.ready = threading.Event()
        self.requests: queue.Queue[dict[str, Any]] = queue.Queue()
        self.answers: queue.Queue[Any] = queue.Queue()
        self.listening = False
        """Whether calls are the script's own; while it is held they are replays."""
        self._armed: set[type] = set()
        self._around = ExitStack()

    # --- running the script

    def start(self) -> Any:
        """Run the script until it is held; its pipeline. Raises what the script raised, or
        RuntimeError where it calls no pipeline."""
        threading.Thread(target=self._run, name="script", daemon=True).start()
        self.ready.wait()
        if self.failure is not None:
            raise self.failure
        return self.pipe

    def _run(self) -> None:
        try:
            failure = self._through()
            if self.calls == 0:
                # A script that reaches no call has failed; one that fails behind its last call, on
                # the blank pictures, has not.
                none = RuntimeError("the program ends without having called a pipeline")
                raise failure if failure is not None else none
            self.hold_at, self.calls = self.calls, 0
            failure = self._through()
            raise failure or RuntimeError("the program makes fewer calls when it runs again")
        except BaseException as error:
            self.failure = error
            self.ready.set()

    def _through(self) -> BaseException | None:
        """Execute the script; what it raised, if that was no ordinary end."""
        import gc

        module = ModuleType("__main__")
        module.__dict__["__file__"] = NAME
        lines = self.source.splitlines(keepends=True)
        linecache.cache[NAME] = (len(self.source), None, lines, NAME)
        self._around = ExitStack()
        for part in (_elsewhere(), _helped(), _as_main(module), self._listening()):
            self._around.enter_context(part)
        try:
            exec(compile(self.source, NAME, "exec"), module.__dict__)
        except SystemExit as end:
            return None if end.code in (None, 0) else RuntimeError(f"the program exits: {end.code}")
        except BaseException as error:
            return error
        finally:
            self._around.close()
            module.__dict__.clear()
            gc.collect()
        return None

    # --- its calls

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Every pipeline that is made meanwhile reports its calls here."""
        from diffusers import DiffusionPipeline

        register, assign = DiffusionPipeline.register_modules, DiffusionPipeline.__setattr__

        def register_modules(pipe: Any, **modules: Any) -> None:
            self._arm(type(pipe))
            register(pipe, **modules)

        def set_attribute(pipe: Any, name: str, value: Any) -> None:
            # A method of its own, such as that of T-GATE's package, is called in place of the
            # pipeline. What replaces a method of the class is called by the class.
            own = isinstance(value, FunctionType | MethodType) and not hasattr(type(pipe), name)
            if own and not name.startswith("_"):
                value = self._on_instance(pipe, value)
            assign(pipe, name, value)

        DiffusionPipeline.register_modules = register_modules
        DiffusionPipeline.__setattr__ = set_attribute
        self.listening = True
        try:
            yield
        finally:
            self.listening = False
            DiffusionPipeline.register_modules = register
            DiffusionPipeline.__setattr__ = assign

    def _arm(self, cls: type) -> None:
        """Stand in the call of the class that defines it, for good: others may have wrapped it
        meanwhile. It lets through what is no call of the script."""
        owner = next(c for c in cls.__mro__ if "__call__" in vars(c))
        if owner in self._armed:
            return
        original = vars(owner)["__call__"]

        @functools.wraps(original)
        def call(pipe: Any, *args: Any, **kwargs: Any) -> Any:
            return self._called(functools.partial(original, pipe), pipe, args, kwargs)

        self._armed.add(owner)
        # Held for every object of the class, whoever made it.
        owner.__call__ = call  # type: ignore[method-assign]

    def _on_instance(self, pipe: Any, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            run = method
            if isinstance(method, FunctionType) and args and args[0] is pipe:
                run, args = functools.partial(method, pipe), args[1:]
            return self._called(run, pipe, args, kwargs)

        return call

    def _called(self, run: Callable[..., Any], pipe: Any, args: Any, kwargs: Any) -> Any:
        """A call of the script: answered with blank pictures, or, if it is the last one, not at
        all, since requests are answered in it from here on."""
        if not self.listening:
            return run(*args, **kwargs)
        self.calls += 1
        given, taken = _given(run, pipe, args, kwargs)
        if self.calls != self.hold_at:
            return _blank(given)
        # From here on everything but the pipeline is as it was before the script.
        self._around.close()
        self.pipe = pipe
        self.ready.set()
        while True:
            self._answer(run, taken, given, self.requests.get())

    # --- requests

    def ask(self, request: dict[str, Any]) -> list[Any]:
        """Pictures of one request, drawn by the held script; raises what the pipeline raised."""
        from torch.utils import _python_dispatch as dispatch

        # What counts operations watches one thread, and the script has its own.
        self.requests.put(request | {"modes": dispatch._get_current_dispatch_mode_stack()})
        answer = self.answers.get()
        if isinstance(answer, BaseException):
            raise answer
        return list(answer)

    def _answer(
        self, run: Any, taken: set[str], arguments: dict[str, Any], request: dict[str, Any]
    ) -> None:
        from torch.utils import _python_dispatch as dispatch

        for mode in request["modes"]:
            dispatch._push_mode(mode)
        try:
            output = run(**self._keywords(taken, arguments, request))
            images = output[0] if isinstance(output, tuple) else output.images
            self.answers.put(images)
        except BaseException as error:
            self.answers.put(error)
        finally:
            for _ in request["modes"]:
                dispatch._pop_mode()

    def _keywords(
        self, taken: set[str], arguments: dict[str, Any], request: dict[str, Any]
    ) -> dict[str, Any]:
        """The script's keywords with the scorer's prompt, seed and picture in their places."""
        import torch

        prompt, seed = request["prompt"], int(request["seed"])
        if arguments.get("prompt_embeds") is not None:
            raise ValueError(
                "the program calls its pipeline with embeddings, so that no other "
                "prompt can be asked; call it with prompt="
            )
        found = {**arguments, **dict.fromkeys(REPLACED & arguments.keys())}
        count = 1 if isinstance(prompt, str) else len(prompt)
        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)]
        if "class_labels" in taken:
            found["class_labels"] = self._labels([prompt] if isinstance(prompt, str) else prompt)
        else:
            found["prompt"] = prompt
        found["generator"] = generators[0] if count == 1 else generators
        negative = request["negative_prompt"] or found.get("negative_prompt")
        # None is no value of every pipeline's: PixArt's is the empty text.
        if "negative_prompt" in taken and negative is not None:
            found["negative_prompt"] = negative[0] if isinstance(negative, list) else negative
        fixed = {"num_images_per_prompt": 1, "output_type": "pil", "return_dict": True}
        found |= {name: value for name, value in fixed.items() if name in taken}
        for name in PICTURES:
            if request["image"] is not None and found.get(name) is not None:
                found[name] = _fitted(request["image"], found[name])
        return found

    def _labels(self, names: list[str]) -> list[int]:
        known = self.pipe.labels
        parts = [[p.strip() for p in name.split(",") if p.strip() in known] for name in names]
        return [self.pipe.get_label_ids(part)[0] for part in parts]


def _given(
    run: Callable[..., Any], pipe: Any, args: Any, kwargs: Any
) -> tuple[dict[str, Any], set[str]]:
    """What a call was given, by name, and every name that it takes. What a method of the script's
    own hands on is named as the pipeline names it."""
    signature = inspect.signature(run)
    bound = signature.bind(*args, **kwargs)
    own = [name for name in inspect.signature(type(pipe).__call__).parameters if name != "self"]
    given: dict[str, Any] = {}
    taken: set[str] = set()
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_POSITIONAL:
            given |= dict(zip(own, bound.arguments.get(name, ()), strict=False))
        elif parameter.kind is parameter.VAR_KEYWORD:
            given |= bound.arguments.get(name, {})
            taken |= set(own)
        else:
            taken.add(name)
            if name in bound.arguments:
                given[name] = bound.arguments[name]
    return given, taken


def _fitted(image: Any, own: Any) -> Any:
    """The scorer's picture in the size of the script's own."""
    own = own[0] if isinstance(own, list | tuple) else own
    size = getattr(own, "size", None)
    return image.convert("RGB").resize(size) if isinstance(size, tuple) else image


def _blank(arguments: dict[str, Any]) -> Any:
    """What a call gives before the one that counts: black pictures of the size asked for."""
    import numpy as np
    import torch
    from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
    from PIL import Image

    prompts = arguments.get("prompt", arguments.get("class_labels"))
    count = len(prompts) if isinstance(prompts, list | tuple) else 1
    count *= int(arguments.get("num_images_per_prompt") or 1)
    height = int(arguments.get("height") or 512)
    width = int(arguments.get("width") or 512)
    kind = arguments.get("output_type", "pil")
    images: Any
    if kind == "np":
        images = np.zeros((count, height, width, 3), np.float32)
    elif kind in ("pt", "latent"):
        images = torch.zeros(count, 3 if kind == "pt" else 4, height // 8, width // 8)
    else:
        images = [Image.new("RGB", (width, height)) for _ in range(count)]
    if arguments.get("return_dict") is False:
        return (images, None)
    return StableDiffusionPipelineOutput(images=images, nsfw_content_detected=None)


@contextmanager
def _elsewhere() -> Iterator[None]:
    """A folder of its own to write to."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


@contextmanager
def _as_main(module: ModuleType) -> Iterator[None]:
    """The script is the main module, called without arguments."""
    kept = sys.modules["__main__"], sys.argv
    sys.modules["__main__"], sys.argv = module, [NAME]
    try:
        yield
    finally:
        sys.modules["__main__"], sys.argv = kept


@contextmanager
def _helped() -> Iterator[None]:
    """What a script would get from its user: required arguments, and pictures that are not here."""
    import argparse

    import diffusers.utils
    from diffusers.utils import loading_utils
    from PIL import Image

    parse, opened, loaded = (
        argparse.ArgumentParser.parse_known_args,
        Image.open,
        loading_utils.load_image,
    )

    def parse_known_args(parser: Any, *args: Any, **kwargs: Any) -> Any:
        for action in parser._actions:
            if action.required and action.dest != "help":
                action.required = False
                action.default = _argument(action)
                action.nargs = action.nargs if action.option_strings else "?"
        return parse(parser, *args, **kwargs)

    def picture(*args: Any, **kwargs: Any) -> Any:
        try:
            return opened(*args, **kwargs)
        except (OSError, ValueError):
            return Image.new("RGB", (512, 512), (127, 127, 127))

    def load_image(*args: Any, **kwargs: Any) -> Any:
        try:
            return loaded(*args, **kwargs)
        except Exception:  # without a network every library fails in its own way
            return Image.new("RGB", (512, 512), (127, 127, 127))

    parser_class: Any = argparse.ArgumentParser
    parser_class.parse_known_args = parse_known_args
    Image.open = picture
    diffusers.utils.load_image = loading_utils.load_image = load_image
    try:
        yield
    finally:
        parser_class.parse_known_args = parse
        Image.open = opened
        diffusers.utils.load_image = loading_utils.load_image = loaded


def _argument(action: Any) -> Any:
    """A value for a required argument of a script."""
    if action.choices:
        return next(iter(action.choices))
    if action.type in (int, float):
        return action.type(0)
    text = "a red circle" if "prompt" in action.dest else f"{action.dest}.png"
    return [text] if action.nargs in ("+", "*") else text


SCRIPT: Script | None = None


def load_pipeline(device: str) -> Any:
    """The script's pipeline as it is at its last call. The device is the script's own affair."""
    global SCRIPT
    SCRIPT = Script(SOURCE)
    return SCRIPT.start()


def generate(
    pipe: Any,
    prompt: str | list[str],
    *,
    seed: int,
    negative_prompt: str | None = None,
    image: Any = None,
    **call: Any,
) -> list[Any]:
    """The script's call with another prompt, seed and picture."""
    if SCRIPT is None or call:
        raise ValueError(f"a script answers its own call only; it takes no {', '.join(call)}")
    request = {"prompt": prompt, "seed": seed, "negative_prompt": negative_prompt, "image": image}
    return SCRIPT.ask(request)
