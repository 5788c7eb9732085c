"""The typed schema of ``conf/``: what every key means and what limits it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from engine.lora import Lora
from engine.requests import Shape
from engine.results import Genome

LLMS = (
    "offline", "openai", "anthropic", "google", "openrouter", "vllm", "ollama", "replay", "mailbox",
)  # fmt: skip


@dataclass(frozen=True)
class Within:
    """Bounds of a number, both legal."""

    low: float
    high: float


@dataclass(frozen=True)
class OneOf:
    """The legal texts of a key."""

    choices: tuple[str, ...]


@dataclass(frozen=True)
class Parsed:
    """A list or mapping that a function of its own reads; the words say what it takes."""

    kind: type
    words: str


@dataclass(frozen=True)
class ModelConfig:
    """A model: where its weights are and how its authors run it (the plain baseline)."""

    name: str
    id: str
    revision: str | None
    pipeline: str
    backbone: Annotated[str, OneOf(("unet", "transformer"))]
    denoiser: Annotated[str, OneOf(("unet", "transformer"))]
    task: Annotated[str, OneOf(("text", "class", "image", "control"))]
    """What an image is made from: a prompt; a class name; a prompt and an image to start from; a
    prompt and a control image."""
    controlnet: str | None
    """Hub id of the ControlNet; null for every task but ``control``."""
    steps: Annotated[int, Within(1, 1000)]
    guidance_scale: Annotated[float, Within(0, 50)]
    height: Annotated[int, Within(8, 8192)]
    width: Annotated[int, Within(8, 8192)]
    dtype: Annotated[str, OneOf(("float32", "float16", "bfloat16"))]
    """What its model card runs on an accelerator; a CPU takes float32 whatever stands here."""
    prediction: Annotated[str, OneOf(("noise", "v", "flow"))]
    prompts: Annotated[str, OneOf(("scenes", "general", "classes"))]
    mini: str | None
    """Folder under ``engine/minis/checkpoints`` that stands for it under ``weights=mini``."""
    weights: str
    gated: bool
    download_gib: Annotated[float, Within(0, 2000)]
    scorer: str | None
    """Folder or hub id of the CLIP model that scores its images; null measures no quality."""
    call: Annotated[
        Mapping[str, Any], Parsed(dict, "keywords of the pipeline's call, as in {strength: 0.6}")
    ] = field(default_factory=dict)
    """What the pipeline is called with besides steps, guidance and size."""
    lora: Annotated[tuple[Lora, ...], Parsed(list, "a list of {id, scale, fuse}")] = ()


@dataclass(frozen=True)
class BaselineConfig:
    """Against what speed and loss are measured, as a genome."""

    name: str
    label: str
    technique: Genome
    fitted: bool = False
    """Whether the sampler is left out for a model whose own schedule is the stronger one: those
    that predict a flow, which it cannot integrate, and those that take no more steps."""
    program: str | None = None
    """A program of the user's own, which then stands in place of the genome's."""


@dataclass(frozen=True)
class HwConfig:
    """A hardware profile; memory is that of the device and is a lower limit in GiB."""

    name: str
    device: Annotated[str, OneOf(("auto", "cpu", "cuda"))]
    threads: Annotated[int | None, Within(1, 1024)]
    memory_gib: Annotated[float | None, Within(0, 4096)]
    match: str | None
    capability: Annotated[float | None, Within(0, 100)]
    """Least compute capability of a CUDA device; the matrix leaves out what needs a newer one."""
    allow_mismatch: bool
    half_precision: bool = True
    """Whether techniques may compute in 16 bits where the machine is fast in them."""


@dataclass(frozen=True)
class GoalConfig:
    """What the search is for. Losses are fractions of the baseline's score, or of the fidelity
    that an exact change keeps where ``quality`` is ``same_image``; without ``max_loss`` any loss
    will do, one that was not measured included."""

    quality: Annotated[str, OneOf(("prompt_score", "same_image"))]
    max_loss: Annotated[float | None, Within(0, 1)]
    max_worst: Annotated[float, Within(0, 1)]
    accuracy_drop: Annotated[float | None, Within(0, 1)]
    keep_steps: bool
    speedup: Annotated[float | None, Within(1, 1000)]
    seconds: Annotated[float | None, Within(0, 86400)]
    memory_gib: Annotated[float | None, Within(0, 4096)]

    @property
    def most_loss(self) -> float:
        """The limit as a number: a goal without one takes every loss as useful."""
        return 1.0 if self.max_loss is None else self.max_loss

    @property
    def names_memory(self) -> bool:
        return self.memory_gib is not None


@dataclass(frozen=True)
class SearchConfig:
    """How to search. What follows ``only`` belongs to single searchers; ``conf/search/`` says to
    which and what it does."""

    name: Annotated[str, OneOf(("genetic", "random", "tpe", "nsga2", "exhaustive", "paper"))]
    population: Annotated[int, Within(1, 1000)]
    generations: Annotated[int, Within(0, 1000)]
    """Zero measures only what ``start`` names."""
    minutes: Annotated[float | None, Within(0, 100_000)]
    seed: Annotated[int, Within(0, 2**31 - 1)]
    first_call_s: Annotated[float, Within(0, 86400)]
    timeout_s: Annotated[float, Within(1, 86400)]
    alone_first: bool
    start: Annotated[Sequence[str], Parsed(list, "a list of studies, presets or recipe files")]
    only: Annotated[
        Mapping[str, Any] | None, Parsed(dict, "techniques, each with lists of values by gene")
    ]
    seeds: bool | None = None
    ranked: bool | None = None
    mutation: bool | None = None
    screen: bool | None = None
    startup: Annotated[int | None, Within(0, 1000)] = None
    parents: Annotated[int | None, Within(2, 1000)] = None
    refined: Annotated[int | None, Within(0, 1000)] = None
    speed_weight: Annotated[float | None, Within(0, 1e6)] = None
    loss_weight: Annotated[float | None, Within(0, 1e6)] = None
    normalise: Annotated[str | None, OneOf(("proportional", "softmax"))] = None
    temperature: Annotated[float | None, Within(0.001, 1e6)] = None
    replacement: bool | None = None
    pool: Annotated[str | None, OneOf(("all", "last"))] = None

    def options(self) -> dict[str, Any]:
        """What is set of the searchers' own options; the searcher refuses what is not its own."""
        own = [field.name for field in dataclasses.fields(self) if field.default is None]
        return {name: value for name in own if (value := getattr(self, name)) is not None}


@dataclass(frozen=True)
class MeasureConfig:
    """Prompts of each rung, two to a round; an odd number is rounded up. ``scored_prompts`` are
    further ones in the search, whose images are scored and not timed."""

    first_prompts: Annotated[int, Within(2, 1000)]
    search_prompts: Annotated[int, Within(2, 1000)]
    scored_prompts: Annotated[int, Within(0, 10_000)]
    acceptance_prompts: Annotated[int, Within(2, 10_000)]
    control_prompts: Annotated[int, Within(2, 1000)]


@dataclass(frozen=True)
class WorkloadConfig:
    """The sizes and batches of a service's requests; none means single images of the model's
    size."""

    name: str
    shapes: Annotated[tuple[Shape, ...], Parsed(list, "a list of {height, width, batch, weight}")]


@dataclass(frozen=True)
class PathsConfig:
    """Folders; null takes the library's own place."""

    outputs: str
    models: str | None
    compile: str | None
    scratch: str | None


# Outside of the class, in which ``list`` is a key.
BENCH_LEVELS = Parsed(list, "a list of levels, as in [1,2]")
BENCH_IDS = Parsed(list, "a list of tasks, as in [L3-017]")


@dataclass(frozen=True)
class BenchConfig:
    """DiffBench: which tasks, whose answers, under which conditions; ``conf/bench/`` says what each
    key does."""

    do: Annotated[str | None, OneOf(("run", "export", "score", "serve"))] = None
    """What ``+bench=`` asked for; null runs no benchmark."""
    name: str | None = None
    contestant: Annotated[str, OneOf(("agent", "rules", "reference"))] = "agent"
    levels: Annotated[Sequence[int], BENCH_LEVELS] = ()
    ids: Annotated[Sequence[str], BENCH_IDS] = ()
    sample: Annotated[int | None, Within(1, 604)] = None
    shard: str = "1/1"
    labels: str | None = None
    weights: Annotated[str, OneOf(("mini", "hub"))] = "mini"
    memory: Annotated[str, OneOf(("fresh", "shared"))] = "fresh"
    repeats: Annotated[int, Within(1, 20)] = 1
    looks: Annotated[int, Within(1, 20)] = 3
    captions: str | None = None
    minutes: Annotated[float | None, Within(0, 100_000)] = None
    submissions: str | None = None
    list: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Within(1, 65535)] = 8604
    evaluations: Annotated[int, Within(1, 10_000)] = 28


@dataclass(frozen=True)
class LlmBudget:
    """What a study may spend on its language model, what an interrupted run of it spent included;
    null sets no limit. ``conf/llm/openai.yaml`` says what is counted."""

    calls: Annotated[int | None, Within(0, 1e9)] = None
    tokens: Annotated[int | None, Within(0, 1e12)] = None
    dollars: Annotated[float | None, Within(0, 1e6)] = None
    seconds: Annotated[float | None, Within(0, 1e8)] = None


@dataclass(frozen=True)
class LlmConfig:
    """Which language model is asked, and how; ``conf/llm/`` says what each key does. It holds no
    key of an API: ``api_key_env`` names the environment variable that does."""

    name: Annotated[str, OneOf(LLMS)] = "offline"
    model: str | None = None
    base_url: str | None = None
    api_key_env: str | None = None
    temperature: Annotated[float | None, Within(0, 2)] = None
    max_tokens: Annotated[int | None, Within(1, 10_000_000)] = None
    timeout_s: Annotated[float | None, Within(0.1, 2_592_000)] = None
    """Deadline of one request, all its attempts included; only ``mailbox`` does without."""
    attempts: Annotated[int, Within(1, 20)] = 4
    structured: Annotated[str, OneOf(("native", "prompt"))] = "native"
    folder: str | None = None
    """The mailbox; or the recording that is replayed, the folder that holds it included."""
    budget: LlmBudget = field(default_factory=LlmBudget)


@dataclass(frozen=True)
class AgentConfig:
    """How a language model is used in a search; ``conf/agent/`` says what each key does."""

    name: Annotated[str, OneOf(("diffagent", "paper"))] = "diffagent"
    plans: Annotated[int, Within(1, 1000)] = 7
    generations: Annotated[int, Within(0, 1000)] = 4
    refined: Annotated[int, Within(0, 1000)] = 4
    tuned: Annotated[int, Within(0, 1000)] = 4
    repairs: Annotated[int, Within(0, 100)] = 3
    rewrites: Annotated[int, Within(0, 100)] = 5
    writes: Annotated[str, OneOf(("structure", "always"))] = "structure"
    knowledge: bool = True
    memory: bool = True
    debugger: bool = True
    selector: bool = True
    tuning: bool = True
    check: bool = True


@dataclass(frozen=True)
class Config:
    """The composed configuration; ``technique`` is the genome in canonical form."""

    model: ModelConfig
    hw: HwConfig
    technique: Genome
    baseline: BaselineConfig
    goal: GoalConfig
    search: SearchConfig
    measure: MeasureConfig
    workload: WorkloadConfig
    paths: PathsConfig
    objective: Annotated[str, OneOf(("time", "flops"))]
    sandbox: Annotated[str, OneOf(("bwrap", "process"))]
    """Where programs of a language model run: behind bubblewrap, or as plain processes."""
    study: str | None
    debug: bool
    prompt: str | None
    data: str | None
    keep: Annotated[str, OneOf(("front", "all"))]
    trial: str | None
    program: bool
    diff: str | None
    llm: LlmConfig = field(default_factory=LlmConfig)
    agent: AgentConfig = field(default_factory=AgentConfig)
    request: str | None = None
    """What was asked in plain language; its overrides are among the others already."""
    bench: BenchConfig = field(default_factory=BenchConfig)

    @property
    def by_agent(self) -> bool:
        """Whether a study's candidates come from the agent: a language model is named, or the
        paper's loop is asked for."""
        return self.llm.name != "offline" or self.agent.name == "paper"

    def by_whom(self) -> dict[str, Any]:
        """What makes an agent's study this study; empty for a searcher's."""
        if not self.by_agent:
            return {}
        llm = {"name": self.llm.name, "model": self.llm.model}
        return {"agent": dataclasses.asdict(self.agent), "llm": llm}

    @property
    def population(self) -> int:
        """Candidates of a generation."""
        return self.agent.plans if self.by_agent else self.search.population

    @property
    def generations(self) -> int:
        """Generations of a study."""
        return self.agent.generations if self.by_agent else self.search.generations
