"""The generated program: verbatim copies, one file, public libraries only."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from PIL import Image

from engine import program
from engine.errors import TrialError, UsageError
from engine.genome import canonical
from engine.lora import Lora
from engine.needs import unmet_by_machine
from engine.program import Subject, generate
from engine.strategy import Needs, Strategy, find, registry
from tests import tiny

CHECKPOINT = Path(__file__).resolve().parents[1] / "engine" / "minis" / "checkpoints" / "sd-mini"
SUBJECT = Subject(
    name="sd-mini",
    id="sd-mini",
    revision=None,
    pipeline="StableDiffusionPipeline",
    denoiser="unet",
    steps=4,
    guidance_scale=5.0,
    height=64,
    width=64,
    miniature=True,
    device="cpu",
)


def loaded(text: str) -> dict[str, Any]:
    scope: dict[str, Any] = {"__name__": "accelerated"}
    exec(compile(text, "accelerated.py", "exec"), scope)
    return scope


MEASURED = {
    "first_block_cache": {"changes": [0.1, 0.2, 0.4]},
    "magcache": {"ratios": [1.0, 0.99, 0.97, 0.98, 0.96, 0.99, 0.95, 0.9]},
}
"""As a calibration of the two caches with thresholds would leave it."""


def _written() -> dict[str, Strategy]:
    """Strategies whose libraries are installed: a program pins their versions."""
    return {
        name: strategy
        for name, strategy in registry().items()
        if unmet_by_machine(Needs(libraries=strategy.needs.libraries), "cpu", "float32") is None
    }


def test_every_strategy_is_copied_as_it_stands_but_for_the_prefix() -> None:
    for name, strategy in _written().items():
        text = generate(SUBJECT, {name: {}}, "test", MEASURED)
        source = Path(str(strategy.module.__file__)).read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name in ("apply", "call", "reset"):
                body = ast.get_source_segment(source, node)
                assert body is not None
                # Whole lines without a renamed name stand in the program letter for letter.
                own = dict(program._definitions(ast.parse(source)))
                plain = [w for w in body.splitlines() if not any(o in w for o in own)]
                assert all(line in text for line in plain), name
                assert f"def {name}_{node.name}(" in text


def test_a_program_imports_nothing_of_this_project() -> None:
    text = generate(SUBJECT, _together(), "test")
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom | ast.Import)
    }
    roots = {name.partition(".")[0] for name in imported}
    assert not roots & {"engine", "strategies"}


def _together() -> dict[str, dict[str, object]]:
    """As many strategies as one genome can hold."""
    genome: dict[str, dict[str, object]] = {"guidance": {"stop": 0.3}}
    for name in registry():
        with contextlib.suppress(UsageError):
            canonical({**genome, name: {}})
            genome.setdefault(name, {})
    return genome


TASKS: dict[str, dict[str, Any]] = {
    "class": {"pipeline": "DiTPipeline", "denoiser": "transformer", "task": "class"},
    "image": {"pipeline": "StableDiffusionImg2ImgPipeline", "task": "image"},
    "control": {
        "pipeline": "StableDiffusionXLControlNetPipeline",
        "task": "control",
        "controlnet": "diffusers/controlnet-canny-sdxl-1.0",
    },
    "small": {"pipeline": "PixArtSigmaPipeline", "denoiser": "transformer"},
    "lora": {"loras": (Lora("/folder", 0.5, True, "a.safetensors"), Lora("a/b", file="b"))},
    "call": {"pipeline": "FluxPipeline", "call": {"max_sequence_length": 256}},
}


def test_a_program_is_clean_by_the_rules_of_this_project(tmp_path: Path) -> None:
    for name, changed in TASKS.items():
        text = generate(dataclasses.replace(SUBJECT, **changed), {}, "test")
        (tmp_path / f"plain_{name}.py").write_text(text, encoding="utf-8")
    for name in ("plain", "together", *_written()):
        genome = {"plain": {}, "together": _together()}.get(name, {name: {}})
        title = "a title that is far too long for one line " * 4
        text = generate(SUBJECT, genome, title, MEASURED)
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    config = ["--config", str(CHECKPOINT.parents[3] / "pyproject.toml"), "--no-cache"]
    # Names in copied lines have grown by the strategy's, which may make such a line too long.
    plain = ["plain.py", *(f"plain_{name}.py" for name in TASKS)]
    for options in (["--ignore", "E501", "."], plain):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", "check", *config, *options],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout


def test_a_gene_that_decides_the_steps_reaches_the_context() -> None:
    scope = loaded(generate(SUBJECT, {"sampler": {"steps": 9}}, "test"))
    assert scope["CTX"].steps == 9
    assert loaded(generate(SUBJECT, {}, "test"))["CTX"].steps == 4


def test_the_header_pins_the_libraries_that_were_measured() -> None:
    text = generate(SUBJECT, {"deepcache": {}}, "test")
    header = text[: text.index('"""')]
    assert header.startswith("# /// script\n")
    assert "DeepCache==" in header
    assert "tomesd" not in header


def test_two_techniques_that_write_the_same_keyword_are_an_error() -> None:
    merged = loaded(generate(SUBJECT, {}, "test"))["_merged"]
    with pytest.raises(ValueError, match="second writes 'eta'"):
        merged({"eta": 1.0}, {"eta": 0.5}, "second")


def test_step_callbacks_are_chained_in_order() -> None:
    merged = loaded(generate(SUBJECT, {}, "test"))["_merged"]
    seen: list[str] = []

    def first(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append("first")
        return {"latents": 1}

    def second(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen.append(f"second sees {values['latents']}")
        return {}

    options = merged({"callback_on_step_end": first}, {"callback_on_step_end": second}, "x")
    assert options["callback_on_step_end"](None, 0, 0, {"latents": 0}) == {"latents": 1}
    assert seen == ["first", "second sees 1"]


def strategy_from(source: str, folder: Path) -> Strategy:
    path = folder / "odd.py"
    path.write_text(source, encoding="utf-8")
    module = ModuleType("odd")
    module.__file__ = str(path)
    like = find("channels_last")
    return dataclasses.replace(like, name="odd", module=module, genes={}, slot="odd", order=1)


def test_helpers_constants_and_imports_follow_and_comments_stay(tmp_path: Path) -> None:
    source = '''
from __future__ import annotations
import math
from engine.strategy import strategy
LIMIT = 3  # why three
UNUSED = 4

def _helper(x: int) -> float:
    # a reason
    return math.sqrt(x) + LIMIT

def apply(pipe, ctx):
    """Docstring about _helper."""
    return [_helper(i) for i in range(LIMIT)]
'''
    part = program._part(strategy_from(source, tmp_path), {})
    text = "\n".join(part.sources)
    assert "odd_LIMIT = 3" in text
    assert "# a reason" in text
    assert "return math.sqrt(x) + odd_LIMIT" in text
    assert "return [odd_helper(i) for i in range(odd_LIMIT)]" in text
    assert "UNUSED" not in text
    assert part.imports == ("import math",)


def test_a_parameter_that_hides_a_module_name_is_refused(tmp_path: Path) -> None:
    source = "scale = 2\ndef apply(pipe, ctx, scale):\n    return scale\n"
    with pytest.raises(TrialError, match="rename one"):
        program._part(strategy_from(source, tmp_path), {})


def test_a_program_runs_in_an_empty_folder_without_this_project(tmp_path: Path) -> None:
    genome = {"sampler": {"name": "unipc", "steps": 4}, "deepcache": {}, "guidance": {}}
    (tmp_path / "accelerated.py").write_text(generate(SUBJECT, genome, "test"), encoding="utf-8")
    # -I leaves out the current folder and PYTHONPATH, so that the checkout cannot be found.
    prompt = "a red circle on a white background"
    command = [sys.executable, "-I", "accelerated.py", "--prompt", prompt]
    done = subprocess.run(
        [*command, "--model", str(CHECKPOINT)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert Image.open(tmp_path / "image.png").size == (64, 64)
    alone = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert alone.returncode == 1
    assert "give its folder" in alone.stderr


def test_what_a_class_leaves_to_chance_is_written_out() -> None:
    image = loaded(generate(dataclasses.replace(SUBJECT, **TASKS["image"]), {}, "test"))
    assert image["CTX"].strength == 0.8
    small = loaded(generate(dataclasses.replace(SUBJECT, **TASKS["small"]), {}, "test"))
    assert small["CALL"]["clean_caption"] is False
    assert small["CALL"]["use_resolution_binning"] is False
    published = dataclasses.replace(SUBJECT, **TASKS["small"], miniature=False)
    assert loaded(generate(published, {}, "test"))["CALL"] == {"clean_caption": False}
    assert "CALL" not in loaded(generate(SUBJECT, {}, "test"))


def test_the_users_own_keywords_win_over_the_tables() -> None:
    own = dataclasses.replace(SUBJECT, **TASKS["image"], call={"strength": 0.4, "clip_skip": 1})
    scope = loaded(generate(own, {}, "test"))
    assert scope["CTX"].strength == 0.4
    assert scope["CALL"] == {"clip_skip": 1}


def test_a_class_may_be_named_by_any_of_its_synonyms() -> None:
    labels = loaded(generate(dataclasses.replace(SUBJECT, **TASKS["class"]), {}, "test"))["_labels"]

    class Pipe:
        # As published: panther is the name of both, and stands for the one that came last.
        labels: ClassVar = {"cougar": 286, "puma": 286, "panther": 290, "jaguar": 290}

        def get_label_ids(self, names: list[str]) -> list[int]:
            return [self.labels[name] for name in names]

    assert labels(Pipe(), ["cougar", "cougar, puma, panther", "jaguar, panther"]) == [286, 286, 290]
    with pytest.raises(ValueError, match="no class 'cuogar'; did you mean cougar"):
        labels(Pipe(), ["cuogar"])


def test_a_keyword_that_the_pipeline_lacks_is_refused_wherever_it_comes_from() -> None:
    class Pipe:
        def __call__(self, prompt: str, guidance_scale: float = 1.0, callback: Any = None) -> None:
            pass

    settings = loaded(generate(SUBJECT, {}, "test"))["_settings"]
    assert settings(Pipe(), {}) == {"guidance_scale": 5.0}
    with pytest.raises(ValueError, match="takes no height here"):
        settings(Pipe(), {"height": 64})
    own = dataclasses.replace(SUBJECT, call={"strengt": 0.5})
    with pytest.raises(ValueError, match="takes no strengt here"):
        loaded(generate(own, {}, "test"))["_settings"](Pipe(), {})
    stop = loaded(generate(SUBJECT, {"guidance": {}}, "test"))
    # It has the switch that the technique looks for, and a call that takes no step callback.
    Pipe.do_classifier_free_guidance = True  # type: ignore[attr-defined]
    pipe = Pipe()
    pipe._callback_tensor_inputs = ["latents"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"takes no callback_on_step_end.* from a technique"):
        stop["_settings"](pipe, {})


def test_older_callbacks_run_one_after_the_other() -> None:
    merged = loaded(generate(SUBJECT, {}, "test"))["_merged"]
    seen: list[Any] = []
    options = merged({"callback": lambda *v: seen.append(v)}, {"callback": seen.append}, "x")
    with contextlib.suppress(TypeError):
        options["callback"](1, 2, 3)
    assert seen == [(1, 2, 3)]


@pytest.mark.parametrize("kind", ["dit", "sd-img2img", "sd-control"])
def test_a_person_runs_a_program_with_what_its_task_needs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.saved(kind, tmp_path / "models")
    scope = loaded(generate(tiny.subject(kind, folder, id=kind), {}, "test"))
    picture = str(tiny.case(kind, tiny.ONE, tmp_path).image)
    extra = {
        "dit": ["--class", tiny.ONE],
        "sd-img2img": ["--prompt", tiny.ONE, "--image", picture],
        "sd-control": ["--prompt", tiny.ONE, "--image", picture, "--controlnet"],
    }[kind]
    extra += [str(folder / "controlnet")] if kind == "sd-control" else []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["accelerated.py", *extra, "--model", str(folder)])
    scope["main"]()
    assert Image.open("image.png").size == (64, 64)
    monkeypatch.setattr(sys, "argv", ["accelerated.py", "--model", str(folder)])
    with pytest.raises(SystemExit):
        scope["main"]()
    missing = "--class" if kind == "dit" else "--prompt, --image"
    assert missing in capsys.readouterr().err
