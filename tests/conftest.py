"""What several tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.config import CONF, from_mapping
from engine.schema import Config
from engine.worker.conversation import Worker
from engine.worker.pool import Pool

ROOT = CONF.parent
CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    """Run ``python -m engine`` in an empty folder, as a person would."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
        return subprocess.run(
            [sys.executable, "-m", "engine", *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return call


def composer(*overrides: str) -> Config:
    """Compose conf/ with overrides and read it."""
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides))
    plain = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(plain, dict)
    return from_mapping({str(key): value for key, value in plain.items()})


@pytest.fixture
def composed() -> Callable[..., Config]:
    """Compose conf/ with overrides and read it."""
    return composer


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """Where workers on this CPU come from."""
    made = Pool("cpu", tmp_path_factory.mktemp("logs"))
    yield made
    made.close()


@pytest.fixture
def worker(pool: Pool) -> Iterator[Worker]:
    """A worker that has loaded nothing yet."""
    made = pool.spawn()
    yield made
    made.close()
