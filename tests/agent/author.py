"""A language model for tests that answers from what it is asked, always in the same way.

Its coder writes short programs of its own; on demand the first version of each lacks an import,
which its debugger puts back.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from engine.agent.llm import Reply, Request, Usage

PROGRAM = '''\
"""Written for a test."""

{imports}

MODEL_ID = "sd-mini"
REVISION = None
STEPS = {steps}


def load_pipeline(device):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(
        MODEL_ID, revision=REVISION, use_safetensors=True, dtype=torch.float32
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe.to(device)


def accelerate(pipe):
    from diffusers import {scheduler}

    pipe.scheduler = {scheduler}.from_config(
        pipe.scheduler.config, timestep_spacing="{spacing}"
    )
{body}    return pipe


def generate(pipe, prompt, *, seed, negative_prompt=None, image=None, **call):
    count = 1 if isinstance(prompt, str) else len(prompt)
    generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(count)]
    settings = {{"num_inference_steps": STEPS, "guidance_scale": 5.0}}
    settings.update({{"height": 64, "width": 64}})
    settings.update({{name: value for name, value in call.items() if value is not None}})
    return pipe(prompt, negative_prompt=negative_prompt, generator=generators, **settings).images
'''
CLASSES = {
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}


def program(techniques: dict[str, dict[str, Any]], *, broken: bool = False) -> str:
    """A program of a sampler and, if it is named, of DeepCache."""
    sampler: dict[str, Any] = {"name": "dpmpp_2m", "steps": 20, "spacing": "trailing"} | techniques[
        "sampler"
    ]
    cache = techniques.get("deepcache")
    body = ""
    if cache is not None:
        interval, branch = cache.get("interval", 3), cache.get("branch", 0)
        body = (
            "    from DeepCache import DeepCacheSDHelper\n\n"
            "    pipe.helper = DeepCacheSDHelper(pipe=pipe)\n"
            f"    pipe.helper.set_params(cache_interval={interval}, cache_branch_id={branch})\n"
            "    pipe.helper.enable()\n"
        )
    return PROGRAM.format(
        imports="" if broken else "import torch",
        steps=sampler["steps"],
        scheduler=CLASSES[str(sampler["name"])],
        spacing=sampler["spacing"],
        body=body,
    )


def _refining(plan: dict[str, Any], asked: str) -> dict[str, Any]:
    """A plan that refines anything refines the first trial that was drawn."""
    drawn = re.search(r"one for each of #(\d+)", asked)
    if plan["refines"] is None or drawn is None:
        return plan
    return plan | {"refines": int(drawn[1])}


class Author:
    """Plans from a list, a call at a time; ``faulty`` are the numbers of the coder's calls whose
    program lacks its import."""

    def __init__(self, plans: Sequence[list[dict[str, Any]]], faulty: Sequence[int] = ()) -> None:
        self.plans = list(plans)
        self.faulty = set(faulty)
        self.requests: list[Request] = []

    @property
    def name(self) -> str:
        return "author"

    def of(self, role: str) -> list[Request]:
        """The requests of one role."""
        return [request for request in self.requests if request.role == role]

    def complete(self, request: Request) -> Reply:
        self.requests.append(request)
        number = len(self.of(request.role))
        asked = request.messages[-1].text
        if request.role == "planner":
            text = json.dumps({"plans": [_refining(p, asked) for p in self.plans[number - 1]]})
        elif request.role == "coder":
            plan = json.loads(re.findall(r"```json\n(.*?)```", asked, re.DOTALL)[0])
            code = program(plan["techniques"], broken=number in self.faulty)
            text = f"As planned:\n\n```python\n{code}```\n"
        else:
            code = re.findall(r"```python\n(.*?)```", asked, re.DOTALL)[-1]
            code = code.replace('"""Written for a test."""\n', '"""Repaired."""\n\nimport torch\n')
            text = f"The import of torch is missing.\n\n```python\n{code}```\n"
        return Reply(text, None, "author-1", Usage(len(asked) // 4, len(text) // 4), 0.001, 0.1,
                     "stop", None)  # fmt: skip


def plan(title: str, techniques: dict[str, Any], structure: str = "", refines: int | None = None
         ) -> dict[str, Any]:  # fmt: skip
    """A plan as a planner writes it."""
    return {
        "title": title,
        "why": "fewer operations",
        "techniques": techniques,
        "structure": structure,
        "refines": refines,
    }
