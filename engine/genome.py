"""A genome: the strategies that are on and the values of their genes, in one canonical form.

Two genomes that mean the same have the same canonical form, therefore the same key, therefore
are measured once.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from engine.errors import UsageError
from engine.results import Genome
from engine.strategy import Strategy, Value, nearest, registry

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.+-]*")
"""Text that Hydra's grammar takes unquoted and as text."""
_FINE = 1000.0
"""Steps for comparing fractions of a number of steps that the genome does not decide."""
_WORDS = {"true", "false", "null", "nan", "inf"}


def canonical(
    genome: Mapping[str, Mapping[str, object]],
    strategies: Mapping[str, Strategy] | None = None,
) -> Genome:
    """Checked genes, missing ones at their default, strategies by order and then by name.

    ``strategies`` defaults to the registry. Raises UsageError for an unknown strategy or gene, a
    value out of bounds, two strategies of one slot, a declared conflict, two genes that decide the
    same field of the context, and a gene that must be below another and is not.
    """
    known = registry() if strategies is None else strategies
    for name in genome:
        if name not in known:
            raise UsageError(f"unknown technique {name!r}{nearest(name, known)}")
    used = sorted((known[name] for name in genome), key=lambda s: (s.order, s.name))
    for first, second in itertools.combinations(used, 2):
        _together(first, second)
    checked = {s.name: s.checked(genome[s.name]) for s in used}
    steps = [checked[s.name][g.name] for s in used for g in s.genes.values() if g.sets == "steps"]
    for one in used:
        _in_order(one, checked, float(steps[0]) if steps else _FINE)
    return checked


def _in_order(one: Strategy, checked: Genome, steps: float) -> None:
    """Refuse a gene that must stay below another one and does not."""
    for gene, limit in one.needs.below:
        name, _, other = limit.partition(".")
        if name not in checked:
            continue
        values = float(checked[one.name][gene]), float(checked[name][other])
        own, most = (int(value * steps + 1e-6) for value in values)
        # Another strategy acts from its first whole step; one's own range may begin at zero.
        own = own if name == one.name else max(1, own)
        if values[0] >= values[1] or own >= max(1, most):
            raise UsageError(
                f"technique.{one.name}.{gene}={checked[one.name][gene]} must be below "
                f"technique.{limit}={checked[name][other]}, else it has nothing to do"
            )


def _together(first: Strategy, second: Strategy) -> None:
    both = f"technique {first.name} and technique {second.name}"
    if first.slot == second.slot:
        raise UsageError(f"{both} share the slot {first.slot!r}: leave one of them out")
    if second.name in first.conflicts or first.name in second.conflicts:
        raise UsageError(f"{both} exclude each other: leave one of them out")
    shared = _context_names(first) & _context_names(second)
    if shared:
        raise UsageError(f"{both} both decide {', '.join(sorted(shared))}: leave one of them out")


def _context_names(strategy: Strategy) -> set[str]:
    return {gene.sets for gene in strategy.genes.values() if gene.sets}


def key(
    genome: Mapping[str, Mapping[str, object]],
    strategies: Mapping[str, Strategy] | None = None,
) -> str:
    """16 hexadecimal digits that name the canonical form."""
    text = json.dumps(canonical(genome, strategies), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def text_key(program: str) -> str:
    """16 hexadecimal digits that name the text of a program that no genome describes."""
    return hashlib.sha256(b"program\0" + program.encode()).hexdigest()[:16]


def context_fields(
    genome: Mapping[str, Mapping[str, object]],
    strategies: Mapping[str, Strategy] | None = None,
) -> dict[str, Value]:
    """The fields of the context that the genome decides, such as ``steps``."""
    known = registry() if strategies is None else strategies
    return {
        gene.sets: values[gene.name]
        for name, values in canonical(genome, known).items()
        for gene in known[name].genes.values()
        if gene.sets
    }


def overrides(
    genome: Mapping[str, Mapping[str, object]],
    strategies: Mapping[str, Strategy] | None = None,
) -> list[str]:
    """Hydra overrides that compose the genome; every gene is spelt out, so that a changed default
    does not change what an old command means."""
    checked = canonical(genome, strategies)
    return [
        f"technique=[{','.join(checked)}]",
        *(
            f"technique.{name}.{gene}={_spelt(value)}"
            for name, values in checked.items()
            for gene, value in values.items()
        ),
    ]


def describe(genome: Mapping[str, Mapping[str, Any]]) -> str:
    """A genome on one line: ``sampler name=unipc steps=8 · deepcache interval=3``."""
    parts = [
        " ".join([name, *(f"{gene}={_shown(value)}" for gene, value in genes.items())])
        for name, genes in genome.items()
    ]
    return " \u00b7 ".join(parts) or "no technique"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def _spelt(value: Value) -> str:
    """A value in Hydra's override grammar."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    quoted = re.sub(r"(\\*)(?='|$)", r"\1\1", value).replace("'", "\\'")
    return f"'{quoted}'"


def from_config(
    technique: Mapping[str, Any] | None, strategies: Mapping[str, Strategy] | None = None
) -> Genome:
    """The genome of a composed ``technique`` node, canonical; an absent node is the empty one."""
    genome: dict[str, dict[str, object]] = {}
    for name, genes in (technique or {}).items():
        if genes is not None and not isinstance(genes, Mapping):
            raise UsageError(
                f"technique.{name} is {genes!r}; allowed: its genes, as in "
                f"technique.{name}.GENE=VALUE"
            )
        genome[str(name)] = {str(gene): value for gene, value in (genes or {}).items()}
    return canonical(genome, strategies)
