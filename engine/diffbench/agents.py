"""Our own agent as a contestant: it reads the request itself, and starts every task afresh."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.config import CONF, from_mapping
from engine.diffbench.submissions import Submission
from engine.errors import TrialError, UsageError

if TYPE_CHECKING:
    from engine.agent.llm import Model
    from engine.schema import Config
    from engine.specification import Specification


class Agent:
    """The agent of ``llm=`` and ``agent=``; with ``bench.memory=shared`` it may read the studies
    of the tasks before. ``model`` gives a language model for a request in place of ``llm=``."""

    def __init__(
        self, config: Config, model: Callable[[Specification], Model] | None = None
    ) -> None:
        self.config = config
        self._model = model
        model_name = f" {config.llm.model}" if config.llm.model else ""
        self.name = f"agent={config.agent.name} llm={config.llm.name}{model_name}"

    def answer(self, task: str, request: str, folder: Path) -> Submission:
        from engine.agent.answer import answer

        asked = self._understood(request, folder)
        if self.config.bench.memory == "shared":
            _lend(folder)
        given = self._model(asked) if self._model else None
        found = answer(asked, self.composed(asked), given, folder)
        return Submission(task, found.program, found.calls, found.tokens, found.cost, found.seconds)

    def _understood(self, request: str, folder: Path) -> Specification:
        """The request as the rules read it, else as the language model does."""
        from engine.phrasing import by_rules

        try:
            return by_rules(request)
        except UsageError as error:
            if self.config.llm.name == "offline":
                raise TrialError("request", str(error)) from None
            words = str(error)
        from engine.agent.opening import model_of
        from engine.agent.reader import by_model

        try:
            return by_model(request, model_of(self.config, folder), words)
        except UsageError as error:
            raise TrialError("request", str(error)) from None

    def composed(self, asked: Specification) -> Config:
        """The configuration of a study for the request, with the run's own settings."""
        from engine.diffbench.baselines import half_precision, sizes
        from engine.session import machine_of
        from engine.specification import overrides

        own = self.config
        apart = ("+sweep=", "hw=", "model.height=", "model.width=")
        listed = [text for text in overrides(asked) if not text.startswith(apart)]
        # A task bounds the CLIP score and nothing else; the exact checker is the miniatures' own.
        listed.append("goal.accuracy_drop=null")
        # A miniature would otherwise draw as many pixels as the request names.
        listed += sizes(asked.model, asked.height, asked.width, own.bench.weights)
        found = from_mapping(composed([*listed, f"model.weights={own.bench.weights}"]))
        search = replace(own.search, only=found.search.only)
        hw = own.hw
        if not half_precision(own.bench.weights, machine_of(own).device):
            hw = replace(hw, half_precision=False)
        return replace(
            found,
            llm=own.llm,
            agent=own.agent,
            hw=hw,
            search=search,
            sandbox=own.sandbox,
            measure=own.measure,
            paths=own.paths,
        )


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    """``conf/`` with overrides, inside of a run of Hydra or outside."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf

    if GlobalHydra.instance().is_initialized():
        cfg = hydra.compose("config", overrides=list(overrides))
    else:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            cfg = hydra.compose("config", overrides=list(overrides))
    data = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(data, dict)
    return {str(key): value for key, value in data.items()}


def _lend(folder: Path) -> None:
    """Let a task's agent find the finished studies of the other tasks among its earlier ones."""
    home = folder / "sweeps"
    home.mkdir(parents=True, exist_ok=True)
    for other in sorted(folder.parent.glob("*/sweeps/search")):
        task = other.parent.parent.name
        link = home / task
        if task != folder.name and (other / "front.json").exists() and not link.exists():
            link.symlink_to(os.path.relpath(other, home), target_is_directory=True)
