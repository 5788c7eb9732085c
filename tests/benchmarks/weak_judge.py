"""Whether a program is what was asked, by what it draws: the judge of the weak programmer.

It knows the program that the generator writes for the request and nothing of the agent's checks: a
program is right if it draws the same pixels from the same seed with as many denoiser forwards and
operations, on the weights of the miniature. A program that is the same code needs no drawing.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.errors import TrialError
from engine.requests import Request
from tests.agent.edits import parses

if TYPE_CHECKING:
    from engine.arms import Arms

ASKED = Request.of("a red circle left of a blue square on a white background", 7)


@dataclass(frozen=True)
class Drawn:
    """What a program did with one request; ``failed`` is why it did nothing."""

    pixels: bytes = b""
    forwards: int = 0
    flops: int | None = None
    failed: str = ""


@dataclass
class Judge:
    """Draws with programs in workers of ``arms`` that are not confined: the texts are ours."""

    arms: Arms
    _seen: dict[str, Drawn] = field(default_factory=dict)

    def right(self, program: str, reference: str) -> bool:
        """Whether the program does what the reference does."""
        if same_code(program, reference):
            return True
        if not parses(program):
            return False
        expected = self.drawn(reference)
        if expected.failed:
            raise ValueError(f"the reference program fails: {expected.failed}")
        return self.drawn(program) == expected

    def drawn(self, program: str) -> Drawn:
        """What the program does; drawn once for each text."""
        if program not in self._seen:
            self._seen[program] = self._draw(program)
        return self._seen[program]

    def _draw(self, program: str) -> Drawn:
        worker = None
        try:
            worker = self.arms.load({}, program)
            images = worker.generate(ASKED).images
            cost = worker.cost(ASKED)
        except TrialError as error:
            return Drawn(failed=f"{error.stage}: {error.reason}")
        finally:
            if worker is not None:
                worker.close()
        return Drawn(images.tobytes(), cost["forwards"], cost["flops"])


def same_code(one: str, other: str) -> bool:
    """Whether two texts are the same program but for comments and the module's docstring."""
    try:
        return _code(one) == _code(other)
    except SyntaxError:
        return False


def _code(text: str) -> str:
    tree = ast.parse(text)
    if ast.get_docstring(tree) is not None:
        del tree.body[0]
    return ast.dump(tree)
