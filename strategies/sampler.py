"""Another sampler with fewer steps: the first and cheapest thing to change.

What it does: replaces the scheduler and sets the number of denoising steps. Time falls in
proportion to the steps, so this comes before every other technique.

When it pays: always, for models that predict noise or v. A cache or a gate has less to save when
few steps are left, so search them together.

Genes: ``name`` is the solver. DDIM (first order) and PNDM are the oldest,
DPM-Solver++ 2M is what most practitioners use, UniPC adds a corrector for very few steps, Euler is
the plain first-order step, DPM-Solver++ SDE adds fresh noise at every step and needs more steps.
``steps`` counts denoiser calls, except that PNDM makes one more. ``spacing`` places them:
``trailing`` starts at pure noise (better at few steps), ``leading`` starts below it, as the first
release of Stable Diffusion did.

Not offered: ``linspace``, because DDIM and PNDM step by a fixed stride and would be told wrong
noise levels, and for the other solvers it nearly equals ``trailing``; Karras noise levels,
because DDIM and PNDM have none, DPM-Solver++ and UniPC then ignore the spacing, and at few steps
their rounded timesteps coincide.

How it fails: below about 8 steps shapes melt (a first-order solver earlier). Models that predict
a flow are refused (``flow_sampler`` is theirs). A scheduler's config may say that the model's
output holds a learned variance as well (DiT, PixArt): the pipelines split that off themselves,
and DPM-Solver would then cut the latents to three channels, so it is told of none. A pipeline
that does not scale its first noise (DiT's) cannot use Euler, whose noise levels start at 14: that
is refused. DiT's hands no generator to its scheduler either, so the noise of the SDE solver comes
from torch's global state there, which programs seed for each image. Settings of the old scheduler
survive in its config, and library defaults differ between a pipeline built in memory and the same
one loaded from disk; so every setting that matters is written out here. No ``reset`` is needed:
each pipeline call runs ``set_timesteps``, which clears the history of every solver offered (model
outputs, order, sample, step index; PNDM also its counter), and the SDE noise comes from the
call's generator elsewhere.

Papers: DDIM arXiv 2010.02502; PNDM 2202.09778; DPM-Solver++ 2211.01095 (good guided samples in
15 to 20 steps); UniPC 2302.04867 (FID 3.87 on CIFAR10 with 10 calls); Euler in EDM 2206.00364;
spacing 2305.08891.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.strategy import KnownGood, Needs, gene, strategy

# The class in diffusers and what must not be left to the old config or to a library default.
SOLVERS: dict[str, tuple[str, dict[str, Any]]] = {
    "ddim": ("DDIMScheduler", {}),
    "dpmpp_2m": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    ),
    "dpmpp_sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 2, "solver_type": "midpoint"},
    ),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 2, "solver_type": "bh2"}),
    "euler": ("EulerDiscreteScheduler", {"interpolation_type": "linear"}),
    # Runge-Kutta warm-up is the class's default and costs eight more denoiser calls.
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}


@strategy(
    slot="scheduler",
    order=10,
    exact=False,
    needs=Needs(inputs=("num_inference_steps",), prediction=("noise", "v")),
    known_good=(
        KnownGood(
            {"name": "dpmpp_2m", "steps": 20, "spacing": "trailing"},
            "DPM-Solver++, arXiv 2211.01095: 15 to 20 steps",
        ),
        KnownGood(
            {"name": "unipc", "steps": 10, "spacing": "trailing"},
            "UniPC, arXiv 2302.04867: 10 calls",
        ),
        KnownGood(
            {"name": "unipc", "steps": 8, "spacing": "trailing"},
            "UniPC, arXiv 2302.04867: made for 5 to 10 calls",
        ),
        KnownGood(
            {"name": "ddim", "steps": 50, "spacing": "leading"},
            "default of the Stable Diffusion release; DDIM, arXiv 2010.02502",
        ),
    ),
)
@dataclass(frozen=True)
class Sampler:
    """Genes of the sampler."""

    name: str = gene(
        "dpmpp_2m",
        "the solver",
        choices=("ddim", "dpmpp_2m", "dpmpp_sde", "unipc", "euler", "pndm"),
    )
    steps: int = gene(20, "denoising steps", low=3, high=50, step=1, sets="steps")
    spacing: str = gene("trailing", "where the steps lie", choices=("leading", "trailing"))


def scheduler_for(config: Any, name: str, spacing: str) -> Any:
    """The solver over the noise schedule of ``config``; raises ValueError for a flow model."""
    import inspect

    import diffusers

    if "beta_schedule" not in config or config.get("prediction_type") == "flow_prediction":
        raise ValueError(
            f"sampler {name} integrates noise or v predictions; this model's scheduler "
            f"({config.get('_class_name', 'unknown')}) is for flow matching"
        )
    class_name, own = SOLVERS[name]
    scheduler_class = getattr(diffusers, class_name)
    wanted = {
        "timestep_spacing": spacing,
        "final_sigmas_type": "zero",
        "use_karras_sigmas": False,
        "use_exponential_sigmas": False,
        "use_beta_sigmas": False,
        "use_lu_lambdas": False,
        "variance_type": None,
        # DDIM's own defaults suit pixels: they would clip latents at one.
        "clip_sample": config.get("clip_sample", False),
        "set_alpha_to_one": config.get("set_alpha_to_one", False),
        **own,
    }
    taken = inspect.signature(scheduler_class.__init__).parameters
    return scheduler_class.from_config(
        config, **{key: value for key, value in wanted.items() if key in taken}
    )


def refuse_unfit(pipe: Any, name: str) -> None:
    """Raise ValueError for a solver that needs more than this pipeline's class does for it."""
    import inspect

    if name == "euler" and "init_noise_sigma" not in inspect.getsource(type(pipe)):
        raise ValueError(
            f"{type(pipe).__name__} does not scale its first noise, which sampler euler needs; "
            "ddim steps the same way"
        )


def apply(pipe: Any, ctx: Any, *, name: str, steps: int, spacing: str) -> None:
    refuse_unfit(pipe, name)
    pipe.scheduler = scheduler_for(pipe.scheduler.config, name, spacing)
    pipe._sampler_state = {"scheduler": pipe.scheduler, "steps": steps}


def call(pipe: Any, ctx: Any, *, name: str, steps: int, spacing: str) -> dict[str, Any]:
    return {"num_inference_steps": steps}


def active(pipe: Any) -> str | None:
    """Whether the scheduler of this strategy ran with its number of steps."""
    state = pipe._sampler_state
    if pipe.scheduler is not state["scheduler"]:
        return f"another scheduler took its place: {type(pipe.scheduler).__name__}"
    ran = pipe.scheduler.num_inference_steps
    if ran != state["steps"]:
        return f"the pipeline prepared {ran} steps instead of {state['steps']}"
    return None
