"""Methods that a program names and that have no effect on the call that counts."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from engine.reading import Method, known, methods, own
from engine.reading.run import Run

CONFIGS = {
    **known.CACHES,
    "BitsAndBytesConfig": "bitsandbytes",
    "TorchAoConfig": "torchao",
    "QuantoConfig": "quanto",
    "DBCacheConfig": "dbcache",
}
"""Classes that do nothing until someone is handed one."""
FUNCTIONS = {
    "DeepCacheSDHelper": "deepcache", "tgate": "tgate", "quantize_": "torchao",
    "quantize_dynamic": "dynamic_int8", "compile_repeated_blocks": "compile",
    "apply_cache_on_pipe": "first_block_cache", **known.APPLIES,
}  # fmt: skip


def dead(tree: ast.Module, run: Run, live: tuple[Method, ...]) -> tuple[Method, ...]:
    """Every method that is named and not live: first line first, each once."""
    found = [*run.named, *_unreached(tree, run)]
    names = {method.name for method in live}
    first: dict[str, Method] = {}
    for method in sorted(found, key=lambda method: method.line):
        if method.name not in names:
            first.setdefault(method.name, method)
    return tuple(first.values())


def _unreached(tree: ast.Module, run: Run) -> Iterator[Method]:
    """Methods in calls that were never interpreted, by the names in them."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        leaf = _leaf(node.func)
        technique = "guidance" if leaf.endswith(methods.CUTOFF) else CONFIGS.get(leaf)
        if technique is None and id(node) not in run.reached:
            technique = _technique(leaf, node.func)
        if technique is not None:
            yield Method(technique, {}, node.lineno)


def _leaf(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _technique(leaf: str, node: ast.expr) -> str | None:
    if leaf in FUNCTIONS:
        return FUNCTIONS[leaf]
    if leaf.startswith("Tgate") and leaf.endswith("Loader"):
        return "tgate"
    if leaf in known.STARTS:
        return known.STARTS[leaf]((), {})[0]
    text = ast.unparse(node)
    if text.endswith("apply_patch"):
        return "tome"
    if text == "torch.compile":
        return "compile"
    name, _, role = leaf.rpartition("_")
    return name if role in own.ROLES and name in own.names() else None
