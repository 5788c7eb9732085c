"""The Hydra sweeper behind ``+experiment=ablation_*``: one whole study for each variant and seed.

Hydra 1.3 finds sweepers in the namespace package ``hydra_plugins`` alone, hence the folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf


class StudiesSweeper(Sweeper):
    """Composes each variant and hands it with the launcher to ``engine.study.run``."""

    def __init__(self, variants: Any, seeds: Any, only: Any) -> None:
        self.settings = {"variants": variants, "seeds": seeds, "only": only}
        self.context: HydraContext | None = None
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run every study. Its jobs, but not the command that resumes it alone, name the
        experiment, under which Hydra knows the settings of this sweeper."""
        from engine import ablation, study

        if self.context is None or self.config is None or self.launcher is None:
            raise RuntimeError("sweep() was called before setup()")
        context, master, launcher = self.context, self.config, self.launcher
        experiment = [text for text in arguments if re.match(r"\+*experiment=", text)]
        replaced = re.compile(r"\+*(experiment=|sweep=|technique[=.])")
        task = [text for text in arguments if not replaced.match(text)]

        def launch(job_overrides: list[list[str]], first_job: int) -> Sequence[JobReturn]:
            jobs = [[*experiment, *overrides] for overrides in job_overrides]
            return launcher.launch(jobs, initial_job_idx=first_job)

        def search(plan: ablation.Planned) -> None:
            overrides = [*experiment, *plan.arguments]
            config = context.config_loader.load_sweep_config(master, overrides)
            study.run(config, list(plan.arguments), launch)

        settings: Any = OmegaConf.to_container(OmegaConf.create(self.settings))
        plans = ablation.planned(str(master.study), arguments=task, **settings)
        ablation.run(plans, search, Path(master.paths.outputs) / "sweeps")
