"""How near the pictures of different captions lie in DiffBench's references.

    python -m tests.benchmarks.near_pairs        reads what +bench=diffbench has kept in outputs

Tells which distance says that a reference tells two captions apart: `engine.pixels.TOLD_APART`.
Nothing is drawn or timed; seconds for 423 references of ten pictures.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from engine.pixels import distance

LIMITS = (1, 2, 4, 8, 10, 15, 20)
NEAREST = 8


def pairs(folder: Path) -> list[tuple[float, str]]:
    """Distance and names of every two pictures of one reference, the nearest first."""
    found = []
    for reference in sorted({picture.parent for picture in folder.rglob("*.png")}):
        pictures = sorted(reference.glob("*.png"))
        images = [np.asarray(Image.open(picture).convert("RGB")) for picture in pictures]
        for i, j in combinations(range(len(pictures)), 2):
            name = f"{reference.parent.name} {pictures[i].stem} {pictures[j].stem}"
            found.append((distance(images[i], images[j]), name))
    return sorted(found)


def main() -> int:
    folder = Path("outputs/bench/.cache/references")
    found = pairs(folder)
    if not found:
        print(f"{folder} holds no pictures; run +bench=diffbench first", file=sys.stderr)
        return 1
    print(f"{len(found)} pairs; the nearest, in grey levels:")
    for apart, name in found[:NEAREST]:
        print(f"  {apart:5.1f}  {name}")
    for limit in LIMITS:
        print(f"{sum(apart < limit for apart, _ in found):6d} below {limit}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
