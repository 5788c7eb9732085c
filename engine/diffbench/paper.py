"""What the paper printed, to stand beside our scores: other hardware, real models, other tasks.

"DiffBench Meets DiffAgent: End-to-End LLM-Driven Diffusion Acceleration Code Generation", AAAI-26,
arXiv 2601.03178, tables 1 and 2. Its tasks and code were not released.
"""

from __future__ import annotations

from dataclasses import dataclass

CITATION = (
    '"DiffBench Meets DiffAgent: End-to-End LLM-Driven Diffusion Acceleration Code Generation", '
    "AAAI-26, arXiv 2601.03178"
)
MARK = "published: real models on the authors' hardware, other tasks"
TASKS = {1: 41, 2: 116, 3: 261, 4: 93, 5: 93}


@dataclass(frozen=True)
class Row:
    """S_p in % by level and over all, as printed; ``hard`` is S_a of the hard tasks in %."""

    name: str
    levels: tuple[float, float, float, float, float]
    whole: float
    hard: float | None = None
    note: str = ""


ROWS = (
    Row("Claude Sonnet 4 alone", (78.04, 72.41, 76.25, 5.38, 8.60), 54.30),
    Row(
        "Claude Sonnet 4 + DiffAgent",
        (90.24, 91.38, 99.23, 33.33, 63.44),
        81.59,
        68.27,
        "its own levels give 492 of 604, which is 81.46",
    ),
    Row("without knowledge base", (82.93, 74.14, 77.78, 26.88, 47.31), 64.90, 45.94),
    Row("without selector", (90.24, 91.38, 99.23, 4.30, 4.30), 67.88, 8.16),
    Row("without debugger", (87.80, 77.59, 81.99, 31.18, 33.33), 66.23, 62.02),
    Row("o3-mini alone", (41.46, 24.14, 4.60, 9.68, 6.45), 11.92),
    Row("o3-mini + DiffAgent", (73.17, 70.69, 69.73, 22.58, 27.96), 56.46),
    Row("GPT-4.1 alone", (56.10, 18.97, 7.28, 10.75, 12.90), 14.24),
    Row("Gemini 2.5 Flash alone", (39.02, 29.31, 7.66, 2.15, 1.08), 12.09),
)
