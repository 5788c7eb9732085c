"""Trusted mapping of what a program says to what is here: published ids to local folders."""

from __future__ import annotations

from typing import Any


def map_models(models: dict[str, str]) -> None:
    """Let ``from_pretrained`` find each of these ids in a local folder, and never the network."""
    from diffusers import DiffusionPipeline

    if not models:
        return
    original = DiffusionPipeline.from_pretrained.__func__

    def from_pretrained(cls: Any, name: Any, *arguments: Any, **options: Any) -> Any:
        folder = models.get(str(name))
        if folder is not None:
            name = folder
            options.pop("revision", None)
        return original(cls, name, *arguments, **options)

    DiffusionPipeline.from_pretrained = classmethod(from_pretrained)
