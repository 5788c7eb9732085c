"""The reader's own rules: what it refuses, what it names as unread, what makes two programs one."""

from __future__ import annotations

import ast
from pathlib import Path

import diffusers
import pytest

from engine.reading import NotPython, effective_key, facts, read
from engine.reading.effective import filled
from engine.reading.mirrors import MIRRORS, canonical_id

HEAD = """\
import torch
import tomesd
from diffusers import *
from diffusers import DDIMScheduler, StableDiffusionPipeline, UniPCMultistepScheduler
from DeepCache import DeepCacheSDHelper

pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5")
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("pipe = (", 1),
        ("import torch\n  x = 1\n", 2),
        ("def f():\nreturn 1\n", 2),
        ("x = 1\nprint 'a'\n", 2),
        ("a = '\0'", 1),
        ("(" * 300 + ")" * 300, 1),
    ],
)
def test_what_is_no_python_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(NotPython) as caught:
        read(text)
    assert caught.value.line == line
    assert caught.value.message


@pytest.mark.parametrize(
    "text",
    [
        "x = 10 ** 10 ** 10 ** 10",
        "x = 'a' * 10 ** 12",
        "x = [0] * 10 ** 12",
        "def f(n):\n    return f(n + 1) + f(n)\nf(0)",
        "x = 1\nwhile True:\n    x = x * x + 1",
        "for i in range(10**9):\n    for j in range(10**9):\n        for k in range(10**9): i + k",
        "x = '%1000000000d' % 5",
        "x = '{:>999999999}'.format(1)",
        "x = '{:{w}}'.format(1, w=10**9)",
        "x = f'{1:>999999999}' + format(1, '>999999999')",
        "x = ('a' * 9999).replace('', 'b' * 99999).replace('b', 'c' * 99999)",
        "if u:\n" + "".join(f"    a{i} = [1] if u else [2]\n" for i in range(800)),
        "x = " + "-" * 400 + "1",
        "a = []\na.append(a)\nif unknown: a = [a]\nprint(a)",
        "f = lambda g: g(g)\nf(f)",
        "class A(A): pass\nA().b.c(1)[2] = 3",
        "from x import *\nq.r(s)(t)[u].v()",
        "match x:\n    case [1, *rest]: y = rest\n    case {'a': z}: y = z\n",
        "exit()",
        "raise SystemExit",
        "async def f():\n    async with a as b:\n        async for c in b: yield c\nf()",
        "try:\n    1 / 0\nexcept* ValueError as e:\n    pass",
        "del x, y[0]\nglobal z\nz: int\nx, *y = 1, 2, 3\n(a := 5)\nassert a",
        "",
    ],
)
def test_any_program_is_read_in_bounded_work(text: str) -> None:
    reading = read(HEAD + "pipe('x', num_inference_steps=20)\n" + text)
    assert reading.steps == 20


@pytest.mark.parametrize(
    ("code", "field", "value"),
    [
        ("pipe('x', num_inference_steps=40 if torch.cuda.is_available() else 5)", "steps", 40),
        ("pipe('x', num_inference_steps=min(30, 50) // 2)", "steps", 15),
        ("pipe('x', **dict(num_inference_steps=7))", "steps", 7),
        ("o = {'num_inference_steps': 9}\no |= {'guidance_scale': 3}\npipe('x', **o)", "steps", 9),
        ("pipe.to(torch.bfloat16)\npipe('x')", "dtype", "bfloat16"),
        ("pipe.to('cuda').half if 0 else pipe.to(dtype=torch.half)\npipe('x')", "dtype", "float16"),
        ("pipe.unet = pipe.unet.to(torch.float16)\npipe('x')", "dtype", "float16"),
        ("pipe('x', negative_prompt=['ugly'])", "negative_prompt", "ugly"),
        ("n = None\npipe('x', num_inference_steps=n or 11)", "steps", 11),
        ("(lambda p: p('x', num_inference_steps=13))(pipe)", "steps", 13),
        ("x = sum(i for i in (4, 5, 6))\npipe('x', num_inference_steps=x)", "steps", 15),
        ("S = DDIMScheduler\npipe.scheduler = S.from_config(pipe.scheduler.config)\npipe('x')",
         "scheduler", "DDIMScheduler"),
    ],
)  # fmt: skip
def test_values_are_followed(code: str, field: str, value: object) -> None:
    assert getattr(read(HEAD + code), field) == value


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("pipe('x', num_inference_steps=int(input()))", "steps: "),
        ("pipe('x', num_inference_steps='many')", "steps: 'many' is no whole number"),
        ("pipe('x', guidance_scale=open('f').read())", "guidance_scale: "),
        ("pipe.scheduler = make()\npipe('x')", "scheduler: make is defined nowhere, line 8"),
        ("exec('pipe.enable_vae_tiling()')\npipe('x')", "code: line 8 runs a text as code"),
        ("import diffusers\ndiffusers.StableDiffusionPipeline.__call__ = lambda s, p: p\npipe('x')",
         "code: line 9 replaces diffusers.StableDiffusionPipeline.__call__ of a library"),
        ("tomesd.apply_patch(pipe, ratio=float(open('r').read()))\npipe('x')",
         "methods.tome.ratio: "),
        ("pipe('x', **load())", "calls: some keywords of line 8: load is defined nowhere, line 8"),
        ("pipe('a', num_inference_steps=5)\npipe('b')", "calls: they differ"),
        ("", "calls: no pipeline is called"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(code: str, sentence: str) -> None:
    found = read(HEAD + code).unread
    assert any(text.startswith(sentence) for text in found), found


STYLES = {
    "flat": """\
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from DeepCache import DeepCacheSDHelper
pipe = StableDiffusionPipeline.from_pretrained("runwayml/stable-diffusion-v1-5",
                                               torch_dtype=torch.float16)
pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
helper = DeepCacheSDHelper(pipe=pipe)
helper.set_params(cache_interval=3, cache_branch_id=0)
helper.enable()
pipe("x", num_inference_steps=50, guidance_scale=7.5, height=512, width=512)
""",
    "class": """\
import torch, diffusers, DeepCache
class Maker:
    def __init__(self, name="stable-diffusion-v1-5/stable-diffusion-v1-5"):
        self.pipe = diffusers.StableDiffusionPipeline.from_pretrained(name).to(torch.half)
        config = self.pipe.scheduler.config
        self.pipe.scheduler = diffusers.DDIMScheduler.from_config(config)
        self.cache = DeepCache.DeepCacheSDHelper(self.pipe)
    def __call__(self, text):
        self.cache.set_params(3)
        self.cache.enable()
        return self.pipe(text).images
Maker()("y")
""",
}


def test_one_configuration_has_one_key_whatever_the_style() -> None:
    keys = {name: effective_key(read(text)) for name, text in STYLES.items()}
    assert len(set(keys.values())) == 1
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys.values())
    for changed in (
        STYLES["flat"].replace("interval=3", "interval=4"),
        STYLES["flat"].replace("steps=50", "steps=49"),
        STYLES["flat"].replace("DDIMScheduler", "UniPCMultistepScheduler"),
        STYLES["flat"].replace("helper.enable()", "pass"),
        STYLES["flat"].replace("float16", "float32"),
        STYLES["flat"].replace("width=512", "width=768"),
        STYLES["flat"].replace(
            "runwayml/stable-diffusion-v1-5", "stabilityai/stable-diffusion-2-1"
        ),
        STYLES["flat"].replace("steps=50", "steps=int(input())"),
    ):
        assert effective_key(read(changed)) != keys["flat"]


def test_mirrors_stand_for_ids_of_the_catalogue() -> None:
    for mirror, own in MIRRORS.items():
        assert facts.entries(own), own
        assert facts.entries(mirror) == facts.entries(own)
    assert canonical_id("RunwayML/Stable-Diffusion-v1-5/") == canonical_id(
        "stable-diffusion-v1-5/stable-diffusion-v1-5"
    )
    assert canonical_id("CompVis/stable-diffusion-v1-4") == "compvis/stable-diffusion-v1-4"


def test_defaults_are_those_of_the_installed_library() -> None:
    sources = {
        path.stem: path for path in Path(diffusers.__file__).parent.glob("pipelines/**/*.py")
    }
    found = {}
    for path in sources.values():
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body if "Pipeline" in text else ():
            if isinstance(node, ast.ClassDef) and node.name in facts.CALLS:
                found[node.name] = node
    assert found.keys() == facts.CALLS.keys()
    for name, node in found.items():
        call = next(
            part
            for part in node.body
            if isinstance(part, ast.FunctionDef) and part.name == "__call__"
        )
        order = [parameter.arg for parameter in call.args.args][1:]
        places = dict(zip(order[::-1], call.args.defaults[::-1], strict=False))
        values = {key: v.value for key, v in places.items() if isinstance(v, ast.Constant)}
        expected = facts.CALLS[name]
        assert tuple(order[: len(expected.order)]) == expected.order
        assert values["num_inference_steps"] == expected.steps
        assert values["guidance_scale"] == expected.guidance_scale
        assert values.get("strength") == expected.strength


def test_what_is_not_stated_is_the_pipelines_own() -> None:
    full = filled(read(HEAD + "pipe('x')"))
    assert (full.scheduler, full.steps, full.guidance_scale) == ("PNDMScheduler", 50, 7.5)
    assert (full.height, full.width, full.dtype) == (512, 512, "float32")
    unknown = filled(read(HEAD + "pipe('x', num_inference_steps=int(input()))"))
    assert unknown.steps is None
