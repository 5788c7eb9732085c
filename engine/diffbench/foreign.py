"""Programs in any style as programs that a worker can run.

A program with the functions ``load_pipeline`` and ``generate`` runs as it is. Anything else is a
script: it is run in the worker with its pipeline's call intercepted (``engine.diffbench.flat``).
The static reader always reads the text of the author, never what stands in front of it.
"""

from __future__ import annotations

import ast
from pathlib import Path

FUNCTIONS = ("load_pipeline", "generate")
"""What a program must define at its top level to be called by the worker."""
THREAD = "script"
"""Name of the thread in which ``flat`` holds a script."""


def is_script(text: str) -> bool:
    """Whether the program lacks the functions that a worker calls. Raises SyntaxError."""
    defined = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
    return not defined.issuperset(FUNCTIONS)


def runnable(text: str) -> str:
    """The text for a worker: the program itself, or the script behind what runs it."""
    if not is_script(text):
        return text
    front = Path(__file__).with_name("flat.py").read_text(encoding="utf-8")
    return front.replace('SOURCE = ""\n', f"SOURCE = {text!r}\n", 1)
