"""What the page says of a language model: calls, tokens and money, and what became of its plans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from engine.report import text
from engine.report.material import Material


def view(material: Material) -> dict[str, Any] | None:
    """What the template shows; None for a study without a language model."""
    agent = material.study.get("agent")
    if not agent:
        return None
    plans = _plans(material)
    written = [plan for plan in plans if plan["history"]]
    repairs = sum(e["what"] == "repaired" for plan in written for e in plan["history"])
    came = sum(str(plan["outcome"]).startswith("trial ") for plan in plans)
    words = f"{agent['model']}, agent={agent['mode']}: {came} of {len(plans)} plans were measured"
    if written:
        count = len(written)
        noun = "program" if count == 1 else "programs"
        words += f"; the model wrote {count} {noun} and repaired {repairs} times"
    return {
        "words": words + ".",
        "ended": agent["ended"],
        "spent": [*agent["spent"], *([agent["total"]] if len(agent["spent"]) > 1 else [])],
        "money": _money,
        "plans": plans,
    }


def _plans(material: Material) -> list[dict[str, Any]]:
    path = material.folder / "plans.json"
    try:
        rows: Sequence[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["plans"]
    except (OSError, ValueError, KeyError):
        return []
    return [
        {
            "title": row["title"],
            "why": row["why"],
            "structure": row["structure"],
            "techniques": text.describe(row["genome"]),
            "outcome": row["outcome"],
            "history": row["history"],
        }
        for row in rows
    ]


def _money(row: Mapping[str, Any]) -> str:
    """Dollars, as far as prices are known."""
    if row["unpriced"] and row["unpriced"] == row["calls"]:
        return "unknown"
    known = f"{row['dollars']:.4f}".rstrip("0").rstrip(".")
    return f"{known} + {row['unpriced']} unknown" if row["unpriced"] else known
