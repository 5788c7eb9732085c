"""The pictures of a point beside the baseline's, as the page shows them."""

from __future__ import annotations

from typing import Any

from engine.report import pictures, text
from engine.report.material import Material, Point


def view(material: Material, point: Point, gallery: pictures.Gallery) -> dict[str, Any]:
    """The worst pairs of a point, further ones and the rest; their pictures go to ``gallery``."""
    result = material.trial(point.trial)
    fidelity = text.same_image(material.goal)
    parts = pictures.compare(result.samples if result else (), fidelity=fidelity)

    def views(found: tuple[pictures.Pair, ...]) -> list[dict[str, Any]]:
        return [
            {
                "pair": pair,
                "words": _words(pair, fidelity),
                "sides": [
                    (name, sample, _thumbnail(material, point, sample.image, gallery))
                    for name, sample in (
                        ("baseline", pair.base),
                        (material.label(point.trial), pair.candidate),
                    )
                ],
            }
            for pair in found
        ]

    groups = {part: views(getattr(parts, part)) for part in ("worst", "shown", "rest")}
    notes = result.notes if result else ()
    return groups | {"point": point, "pairs": sum(map(len, groups.values())), "notes": notes}


def _words(pair: pictures.Pair, fidelity: bool) -> str:
    """What the caption says about a pair beside its prompt."""
    words = f"seed {pair.candidate.seed}"
    if fidelity and pair.candidate.ssim is not None:
        words += f", SSIM {pair.candidate.ssim:.3f}"
    elif pair.drop is not None:
        words += f", score {-pair.drop:+.1f}"
    return words


def _thumbnail(
    material: Material, point: Point, image: str | None, gallery: pictures.Gallery
) -> pictures.Thumbnail | None:
    return gallery.add(material.folders[point.trial] / image) if image else None
