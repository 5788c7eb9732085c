"""Three requests that were answered by hand through the mailbox, and how they are run.

    python -m tests.agent.requests FOLDER

asks them one after the other; each request waits as a file in FOLDER/<name>/mailbox for its reply.
What was answered is kept under ``recordings/`` and replayed by a test.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from engine.agent.answer import Answer, answer
from engine.phrasing import by_rules
from engine.schema import Config
from engine.specification import Specification, overrides
from tests.agent.evolve import TINY

RECORDINGS = Path(__file__).parent / "recordings"
REQUESTS = {
    "ddim-deepcache": "Use the DDIM scheduler with 20 steps and DeepCache at interval 3.",
    "unipc-tome": "Run it with UniPC in 12 steps, and merge half of the tokens with ToMe.",
    "faster": "At least 1.6 times as fast, quality within 5 %.",
}
MORE = ("agent.writes=always", "agent.plans=2", "agent.generations=1", "agent.tuning=false")
Compose = Callable[..., Config]


def specification(name: str) -> Specification:
    """What a request asks of the miniature."""
    return by_rules(REQUESTS[name], "sd-mini")


def configured(compose: Compose, name: str, *more: str) -> Config:
    """The configuration of a request's run."""
    own = [text for text in overrides(specification(name)) if text != "+sweep=ga"]
    kept = [text for text in TINY if not text.startswith(("goal.", "model="))]
    return compose(*kept, "goal.accuracy_drop=1.0", *own, *MORE, *more)


def replayed(compose: Compose, name: str, folder: Path) -> Answer:
    """A request answered from its recording."""
    recording = RECORDINGS / name
    config = configured(compose, name, "llm=replay", f"llm.folder={recording}")
    return answer(specification(name), config, None, folder)


def main(folder: Path) -> None:
    """Ask all three through the mailbox, and keep what was answered."""
    from tests.conftest import composer

    for name in REQUESTS:
        home = folder / name
        config = configured(composer, name, "llm=mailbox", f"llm.folder={home / 'mailbox'}")
        made = answer(specification(name), config, None, home)
        print(name, dataclasses.replace(made, program=""))
        source = home / "sweeps" / "search" if made.trial is not None else home
        kept = RECORDINGS / name
        kept.mkdir(parents=True, exist_ok=True)
        for file in ("calls.jsonl", "secret.json"):
            if (source / file).exists():
                shutil.copyfile(source / file, kept / file)
        (kept / "program.txt").write_text(made.program, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
