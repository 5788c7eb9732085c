"""What every strategy promises, and every combination of the ones that must combine."""

from __future__ import annotations

import ast
import inspect
import itertools
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from engine.strategy import FUNCTIONS, registry
from engine.worker.probe import unmet

NAMES = list(registry())
SAMPLERS = ("ddim", "dpmpp_2m", "dpmpp_sde", "unipc", "euler", "pndm")
COMBINING = ("deepcache", "tome", "tgate", "guidance")
ALL_SUBSETS = [c for n in range(5) for c in itertools.combinations(COMBINING, n)]

ENDS = [
    (name, gene.name, value)
    for name, strategy in registry().items()
    for gene in strategy.genes.values()
    for value in (gene.choices or dict.fromkeys(gene.values()[:: max(1, len(gene.values()) - 1)]))
]

# What acts on the decoding of a batch shows in its pixels only.
CALLS: dict[str, dict[str, Any]] = {"vae": {"prompt": ["a red circle"] * 2, "output_type": "pt"}}


def skip_unless_it_applies(name: str, pipe: Any) -> None:
    """A strategy for another device, or without its weights here, has tests of its own."""
    strategy = registry()[name]
    unfit = strategy.function("unfit")
    reason = unmet(strategy.needs, pipe, "unet", "cpu") or (unfit(pipe) if unfit else None)
    if reason is not None:
        pytest.skip(reason)


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_known_good_settings_are_legal(name: str) -> None:
    strategy = registry()[name]
    assert strategy.checked({}) == strategy.defaults()
    for setting in strategy.known_good:
        assert setting.source
        strategy.checked(setting.genes)


@pytest.mark.parametrize("name", NAMES)
def test_every_card_says_what_it_does_when_it_pays_and_how_it_fails(name: str) -> None:
    strategy = registry()[name]
    card = strategy.module.__doc__ or ""
    assert strategy.summary.endswith(".")
    for part in ("What it does:", "When it pays:", "How it fails:"):
        assert part in card
    for gene in strategy.genes:
        assert f"``{gene}``" in card


@pytest.mark.parametrize("name", NAMES)
def test_functions_take_exactly_the_genes_as_keywords(name: str) -> None:
    strategy = registry()[name]
    assert strategy.function("active") is not None
    for kind in FUNCTIONS:
        if function := strategy.function(kind):
            keywords = {
                p.name
                for p in inspect.signature(function).parameters.values()
                if p.kind is p.KEYWORD_ONLY
            }
            assert keywords == (set() if kind == "reset" else set(strategy.genes))


def copied_names(module: Any) -> set[str]:
    """Every module-level name that the copied functions reach, as the generator finds them."""
    top: dict[str, ast.stmt] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            top[node.name] = node
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            assert isinstance(target, ast.Name)
            top[target.id] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            top |= {(alias.asname or alias.name): node for alias in node.names}
    reached: set[str] = set()
    waiting = [name for name in FUNCTIONS if name in top]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            used = {n.id for n in ast.walk(top[name]) if isinstance(n, ast.Name)}
            waiting += used & set(top)
    return reached


@pytest.mark.parametrize("name", NAMES)
def test_copied_code_needs_nothing_of_the_engine(name: str) -> None:
    module = registry()[name].module
    for reached in copied_names(module):
        home = getattr(vars(module)[reached], "__module__", None) or ""
        assert not home.startswith("engine"), reached
        assert not hasattr(vars(module)[reached], "__strategy__"), reached


def test_listing_strategies_imports_no_heavy_library() -> None:
    code = (
        "import sys; from engine.strategy import registry; registry();"
        "print([m for m in ('torch', 'diffusers', 'tomesd', 'DeepCache') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("name", "gene", "value"), ENDS)
def test_both_ends_of_every_gene_run_and_take_effect(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str, gene: str, value: Any
) -> None:
    skip_unless_it_applies(name, fresh())
    made = ready({name: {gene: value}})
    assert torch.isfinite(made.latents(**CALLS.get(name, {}))).all()
    assert made.reasons() == {name: None}


@pytest.mark.parametrize("name", NAMES)
def test_the_second_image_does_not_depend_on_the_first(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str
) -> None:
    skip_unless_it_applies(name, fresh())
    used, new = ready({name: {}}), ready({name: {}})
    used.latents("a green ring on a black background", seed=5)
    used.latents(["a cyan square on a white background"] * 2, seed=6)
    torch.rand(7)
    assert torch.equal(used.latents(), new.latents())


@pytest.mark.parametrize("name", NAMES)
def test_exact_means_rounding_and_lossy_means_more(
    ready: Callable[..., Any], fresh: Callable[[], Any], name: str
) -> None:
    skip_unless_it_applies(name, fresh())
    call = CALLS.get(name, {})
    plain, changed = ready({}).latents(**call), ready({name: {}}).latents(**call)
    gap = (plain - changed).abs().max() / plain.abs().max()
    assert (gap < 1e-4) if registry()[name].exact else (gap > 1e-4)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("subset", ALL_SUBSETS, ids="+".join)
def test_every_subset_of_techniques_runs_with_every_sampler(
    ready: Callable[..., Any], subset: tuple[str, ...], sampler: str
) -> None:
    genes: dict[str, dict[str, Any]] = {name: {} for name in subset}
    genes["sampler"] = {"name": sampler, "steps": 6}
    if "guidance" in subset:
        # Before the gate, so that both have something to do.
        genes["guidance"] = {"stop": 0.2}
    made = ready(genes)
    assert torch.isfinite(made.latents()).all()
    assert set(made.reasons().values()) == {None}
    assert len(made.batches) == 6 + (sampler == "pndm")
