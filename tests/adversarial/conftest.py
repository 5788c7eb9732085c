"""One evaluator for all dishonest programs: the trained miniature at few steps, behind bubblewrap.

Each program is the honest one with a few lines behind it, which is also how a program would cheat.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine import session
from engine.config import CONF, from_mapping
from engine.evaluate import Evaluator
from engine.genome import canonical
from engine.results import Genome, Result
from engine.schema import Config
from engine.worker import sandbox

STEPS = 10
SETTINGS = (
    "+debug=tiny",
    "objective=flops",
    "baseline=plain",
    f"model.steps={STEPS}",
    "hw.threads=1",
    "measure.search_prompts=4",
    "measure.scored_prompts=4",
)


def composed_config(*overrides: str) -> Config:
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = hydra.compose("config", overrides=list(overrides))
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return from_mapping(plain)


def require_bubblewrap() -> None:
    finding = sandbox.probe()
    if not finding.ok:
        pytest.skip(f"bubblewrap cannot start here: {finding.cause}")


@dataclass
class Court:
    """Judges programs as a study does."""

    evaluator: Evaluator
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def honest(self, genome: Genome | None = None) -> str:
        """The text of an honest program."""
        return self.evaluator.arms.program(canonical(genome or {}))

    def with_lines(self, lines: str, genome: Genome | None = None) -> str:
        """The honest program with further lines behind its functions."""
        text = self.honest(genome)
        head, main, tail = text.partition('\n\nif __name__ == "__main__":')
        return f"{head}\n\n{lines.strip()}\n{main}{tail}"

    def verdict(self, program: str, genome: Genome | None = None) -> Result:
        """What becomes of the program in a search."""
        return self.evaluator.evaluate(
            next(self.numbers), canonical(genome or {}), "model", (), program
        )

    def caught(self, code: str, program: str, genome: Genome | None = None) -> str:
        """The reason for which the program is refused; it must be for this code first of all."""
        result = self.verdict(program, genome)
        assert result.stage == "honesty", (result.stage, result.reason, result.speedup)
        assert str(result.reason).startswith(f"{code}: "), result.reason
        assert not result.ok
        return str(result.reason)


@pytest.fixture(scope="session")
def court(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Court]:
    require_bubblewrap()
    config = composed_config(*SETTINGS)
    folder = tmp_path_factory.mktemp("court")
    with Evaluator(config, session.machine_of(config), folder) as evaluator:
        yield Court(evaluator)


@pytest.fixture
def wrapped(court: Court) -> Callable[[str], str]:
    """The honest program whose ``generate`` is replaced; the honest one is called ``draw``."""

    def program(body: str, before: str = "") -> str:
        lines = f"{before}\ndraw = generate\n\n\ndef generate(pipe, prompt, *, seed, **call):\n"
        return court.with_lines(lines + "\n".join(f"    {line}" for line in body.splitlines()))

    return program
