"""The arms of a measurement: programs loaded in workers, warm, and the resident baseline."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import architectures, calibration, catalogue, controlnet, lora, models, program, prune
from engine.accounts import Accounts
from engine.asked import Asked
from engine.errors import TrialError, UsageError
from engine.genome import canonical, describe
from engine.inputs import Inputs, labels_of
from engine.needs import idle
from engine.program import Subject
from engine.reading import mirrors
from engine.requests import Request
from engine.results import Genome
from engine.schema import Config
from engine.secret import Secret
from engine.strategy import find
from engine.worker.confined import Workers, confinement, folders
from engine.worker.conversation import Answer, Load, Worker
from engine.worker.pool import Pool

if TYPE_CHECKING:
    from engine.hardware import Machine

WARM_CALLS = 5
"""Most calls of a warm-up; it ends earlier once two in a row differ by less than 10 %."""

NOT_COUNTED: Mapping[str, Any] = {"flops": None, "forwards": 0, "unknown": ()}


@dataclass(frozen=True)
class Facts:
    """What a worker's warm-up told: operations of one image (over the workload's mix), denoiser
    forwards of its first request, seconds of the load and of the first calls of all shapes, the
    graphs compiled so far, and the prompts that it was asked."""

    flops: int | None
    forwards: int
    first_call_s: float
    load_s: float
    graphs: int | None
    unknown: tuple[str, ...] = ()
    prompts: frozenset[str] = frozenset()


class Baseline:
    """The resident baseline as an arm. Its failure is ours and ends the study, resumable."""

    def __init__(self, worker: Worker, facts: Facts) -> None:
        self.worker = worker
        self.facts = facts
        self.pid = worker.pid
        self.pause = worker.pause
        self.resume = worker.resume

    def generate(self, request: Request) -> Answer:
        try:
            return self.worker.generate(request)
        except TrialError as error:
            raise RuntimeError(f"the baseline failed: {error.reason}") from error


class Arms:
    """Starts and warms programs of one configuration; holds the workers and the accounts.

    Close it, so that no worker is left. ``folder`` receives the workers' logs and ``baseline/``.
    ``counts`` says whether a warm-up counts operations; on a miniature that takes as long as four
    images.
    """

    def __init__(
        self, config: Config, machine: Machine, folder: Path, *, counts: bool = True
    ) -> None:
        self.config = config
        self.machine = machine
        self.folder = folder
        self.accounts = Accounts()
        self.location = models.locate(config.model, config.paths.models)
        if self.location.is_random:
            architectures.require_room(config.model, machine.device, _free_gib(machine))
        labels = labels_of(Path(self.location.path_or_id))
        self.asked = Asked(config, Inputs(config.model, folder, labels))
        net = controlnet.beside(config.model, self.location, config.paths.models)
        loras = lora.located(config.model.lora, config.paths.models)
        self.subject = replace(
            subject(config, machine, self.location, net, loras), shapes=self.asked.measured()
        )
        # What a program says, and what the model is published as, lie in these folders.
        names = (config.model.id, self.subject.id)
        self._models = dict.fromkeys(names, self.location.for_worker) | self.location.configs
        self._models |= {net.id: net.folder} if net else {}
        self._foreign = published_sides(config, self.location)
        self.baseline = canonical(config.baseline.technique)
        self._pool = Pool(machine.device, folder / "logs", environment(config, machine))
        self._confined: Workers | None = None
        self._counts = counts
        self._base: Baseline | None = None

    def close(self) -> None:
        """Kill all workers."""
        self._pool.close()
        if self._confined is not None:
            self._confined.close()

    @functools.cached_property
    def secret(self) -> Secret:
        """What untrusted programs are asked follows from it."""
        return Secret.of(self.folder)

    def _sandbox(self) -> Workers:
        """Where untrusted programs run, made on first use; raises UsageError where it cannot be."""
        if self._confined is None:
            self._confined = confinement(
                self.config.sandbox,
                self.machine,
                self.folder / "logs",
                folders(self._models, [lora.id for lora in self.subject.loras]),
                environment(self.config, self.machine),
                self.folder / "compiled",
            )
        return self._confined

    def require_sandbox(self) -> None:
        """Raises UsageError where untrusted programs cannot run: asked before one is paid for."""
        self._sandbox()

    def program(self, genome: Genome) -> str:
        """The text; what its techniques must measure of the model is measured first."""
        found = calibration.measured(self, genome)
        return program.generate(self.subject, genome, describe(genome), found)

    @contextlib.contextmanager
    def running(
        self,
        genome: Genome,
        text: str,
        *,
        limited: bool = True,
        untrusted: bool = False,
        counted: bool = True,
    ) -> Iterator[tuple[Worker, Facts]]:
        """A loaded and warm worker with its facts; ``limited`` holds its first call to the
        configuration's limit. One that is not ``counted`` is only for its times and pictures."""
        worker = self.load(genome, text, untrusted=untrusted)
        salt = self.secret.number("warm", time.time_ns()) if untrusted else 0
        try:
            yield worker, self._warm(worker, limited=limited, salt=salt, counted=counted)
        finally:
            worker.close()

    def load(self, genome: Genome, text: str, *, untrusted: bool = False) -> Worker:
        """A worker that has loaded a program and is cold; the caller closes it.

        An untrusted one is not asked for its techniques: it has none of ours to name.
        """
        with self.accounts.on("load"):
            worker = self._sandbox().spawn() if untrusted else self._pool.spawn()
            try:
                worker.load(
                    Load(
                        program=text,
                        strategies=() if untrusted else tuple(genome),
                        models=self._models | (self._mirrors() if untrusted else {}),
                        denoiser=self.subject.denoiser,
                        device=self.machine.device,
                        threads=self.config.hw.threads or self.machine.cores,
                        timeout_s=self.config.search.timeout_s,
                        foreign=self._foreign if untrusted else None,
                        untrusted=untrusted,
                    )
                )
            except BaseException:
                worker.close()
                raise
        return worker

    def _mirrors(self) -> dict[str, str]:
        """The model's folder under the other ids of the same weights."""
        own = self.config.model.id
        return {
            mirror: self.location.for_worker
            for mirror, published in mirrors.MIRRORS.items()
            if published == own
        }

    def _warm(self, worker: Worker, *, limited: bool, salt: int = 0, counted: bool = True) -> Facts:
        """Calls of every shape until the time settles, and the cost in calls of its own."""
        first, flops, images = 0.0, 0.0, 0.0
        known, forwards, unknown = True, 0, set[str]()
        # A program could know the picture of a request that it has seen, or that is published.
        prompts = _prompts(self.asked.trials()) if salt else set[str]()
        calls = self.asked.trials(salt, prompts)
        prompts |= _prompts(calls)
        counted_calls = self.asked.trials(salt + 1, prompts) if salt else calls
        prompts |= _prompts(counted_calls)
        with self.accounts.on("generate"):
            for (request, share), (again, _) in zip(calls, counted_calls, strict=True):
                seconds = [worker.generate(request).seconds]
                first += seconds[0]
                if limited:
                    self._refuse_slow_start(first)
                cost = worker.cost(again) if self._counts and counted else NOT_COUNTED
                known &= cost["flops"] is not None
                flops += share * (cost["flops"] or 0)
                images += share * len(request.cases)
                forwards = forwards or cost["forwards"]
                unknown |= set(cost["unknown"])
                if self.config.objective == "time":
                    _settle(worker, request, seconds)
            worker.check_active()
        return Facts(
            flops=round(flops / images) if known else None,
            forwards=forwards,
            first_call_s=first,
            load_s=worker.load_s,
            graphs=worker.graphs(),
            unknown=tuple(sorted(unknown)),
            prompts=frozenset(prompts),
        )

    def _refuse_slow_start(self, seconds: float) -> None:
        limit = self.config.search.first_call_s
        if self.machine.device == "cpu" and seconds > limit:
            raise TrialError(
                "run",
                f"the first call took {seconds:.0f} s; search.first_call_s={limit:g} is the limit "
                "on a CPU",
            )

    def base(self) -> Baseline:
        """The resident baseline, started on first use."""
        if self._base is None:
            text = self.baseline_program()
            path = self.folder / "baseline" / "accelerated.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            try:
                worker = self.load(self.baseline, text)
                # Whoever names a baseline wants it, however long its first call takes.
                self._base = Baseline(worker, self._warm(worker, limited=False))
            except TrialError as error:
                raise UsageError(
                    f"the baseline itself failed at {error.stage}: {error.reason}"
                ) from error
            worker.pause()
        return self._base

    def renew_base(self) -> None:
        """End the baseline's process; the next use starts another one of the same program."""
        if self._base is not None:
            self._base.worker.close()
            self._base = None

    def adopt(self, base: Baseline) -> None:
        """Take a resident baseline that the caller has started and will close."""
        self._base = base

    def baseline_program(self) -> str:
        """The text of the baseline: the user's own program, or the genome's."""
        path = self.config.baseline.program
        if path is None:
            return self.program(self.baseline)
        try:
            return Path(path).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"baseline={path} cannot be read: {error}") from None

    def applicable(self) -> dict[str, str | None]:
        """Strategy to the reason why it cannot apply to this model here; None where it can."""
        reasons = self._probed()
        asked = self.subject
        return {
            name: why or idle(find(name), asked.steps, asked.guidance_scale)
            for name, why in reasons.items()
        }

    def _probed(self) -> dict[str, str | None]:
        """What the worker says that has loaded the pipeline."""
        denoiser, device = self.subject.denoiser, self.machine.device
        if self.config.baseline.program is not None:
            # The user's pipeline may be changed in any way; what a strategy gets is the plain one.
            worker = self.load({}, self.program({}))
            try:
                return worker.applicable(denoiser, device)
            finally:
                worker.close()
        base = self.base()
        reasons = base.worker.applicable(denoiser, device)
        base.pause()
        return reasons


def subject(
    config: Config,
    machine: Machine,
    location: models.Location,
    net: controlnet.Beside | None = None,
    loras: tuple[lora.Lora, ...] = (),
) -> Subject:
    """What the programs of this configuration run; ``net`` and ``loras`` are loaded with it."""
    model = config.model
    name = model.id if model.weights in ("hub", "random") else location.path_or_id
    return Subject(
        name=model.name,
        # A miniature goes by its own name, whatever it stands for.
        id=Path(location.path_or_id).name if location.is_mini else name,
        revision=None if location.is_mini else location.revision,
        pipeline=model.pipeline,
        denoiser=model.denoiser,
        steps=model.steps,
        guidance_scale=model.guidance_scale,
        height=model.height,
        width=model.width,
        miniature=location.is_mini,
        device=machine.device,
        config=location.config,
        dtype="float32" if machine.device == "cpu" else model.dtype,
        task=model.task,
        controlnet=net.id if net else None,
        controlnet_revision=net.revision if net else None,
        loras=loras,
        call=model.call,
        shapes=config.workload.shapes,
    )


def published_sides(config: Config, location: models.Location) -> dict[str, int] | None:
    """Pixels of a side by the ids of a published model that a miniature stands for here; None for
    a model that stands for itself."""
    model = config.model
    if not location.is_mini or model.name == model.mini or model.name not in catalogue.names():
        return None
    side = int(catalogue.entry(model.name)["height"])
    ids = [mirror for mirror, published in mirrors.MIRRORS.items() if published == model.id]
    return dict.fromkeys([model.id, *ids], side)


def _free_gib(machine: Machine) -> float:
    """Memory that a worker's weights can take: of the accelerator where there is one."""
    if machine.device_memory_gib is not None:
        return machine.device_memory_gib
    import psutil

    return float(psutil.virtual_memory().available / 2**30)


def environment(config: Config, machine: Machine) -> dict[str, str]:
    """Variables of the workers: the folders that the configuration names, and bound threads.

    Compiled code is shared between programs of one set of versions and kind of device only.
    """
    paths = config.paths
    versions = "-".join(f"{name}{machine.versions[name]}" for name in ("torch", "diffusers"))
    compiled = prune.compile_cache(paths)
    found = {"TORCHINDUCTOR_CACHE_DIR": str((compiled / machine.profile() / versions).resolve())}
    if machine.device == "cpu" and config.hw.threads is None:
        # An arm is stopped and woken again and again. Threads that may move sometimes share a core
        # for a while, and one arm then looks slower for no reason of its own. Where not all cores
        # are used they stay free, else two studies would crowd on the first ones.
        found["OMP_PROC_BIND"] = "true"
    if paths.models is not None:
        found["HF_HUB_CACHE"] = str(Path(paths.models).resolve())
    if paths.scratch is not None:
        scratch = Path(paths.scratch).resolve()
        scratch.mkdir(parents=True, exist_ok=True)
        found["TMPDIR"] = str(scratch)
    return found


def _settle(worker: Worker, request: Request, seconds: list[float]) -> None:
    """Repeat a call, with fresh seeds, until two in a row take nearly the same time."""
    while len(seconds) < WARM_CALLS:
        if len(seconds) > 1 and abs(seconds[-1] / seconds[-2] - 1) < 0.1:
            return
        fresh = replace(request, seed=len(seconds) + 1)
        seconds.append(worker.generate(fresh).seconds)


def _prompts(calls: Sequence[tuple[Request, float]]) -> set[str]:
    return {prompt for request, _ in calls for prompt in request.prompts}
