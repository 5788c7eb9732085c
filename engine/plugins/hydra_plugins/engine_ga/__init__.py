"""The Hydra sweeper behind ``+sweep=``: it only connects Hydra's launcher to a study.

Hydra 1.3 finds sweepers in the namespace package ``hydra_plugins`` alone, hence the folder.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class GASweeper(Sweeper):
    """Hands the composed configuration and the launcher to ``engine.study.run``."""

    def __init__(self) -> None:
        self.config: DictConfig | None = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Run the study. A job's overrides are the arguments plus its genome, which stands in
        place of the techniques that the command line composed; a sweep that sets more than the
        sweeper holds for jobs as well."""
        from engine.study import run

        if self.config is None or self.launcher is None:
            raise RuntimeError("sweep() was called before setup()")
        launcher = self.launcher

        def launch(job_overrides: list[list[str]], first_job: int) -> Sequence[JobReturn]:
            return launcher.launch(job_overrides, initial_job_idx=first_job)

        replaced = re.compile(r"\+*(sweep=ga$|technique[=.])")
        task = [text for text in arguments if not replaced.match(text)]
        return run(self.config, task, launch)
