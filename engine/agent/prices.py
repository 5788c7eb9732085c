"""What a call costs, from the table of genai-prices that is installed with the client; offline."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine.results import write_json

FILE = "prices.json"
PROVIDERS = ("openai", "anthropic", "google", "openrouter")
"""Doors whose provider the table knows; your own server has no price."""


class Prices:
    """The price of one model; unknown models and own servers have none. What speaks OpenAI's
    protocol at another address is looked up by that address."""

    def __init__(self, provider: str, model: str, base_url: str | None) -> None:
        self._provider = provider
        self._model = model
        self._base_url = base_url

    def cost(self, usage: Any, answered: str | None = None) -> float | None:
        """US dollars of a usage (an object with ``input_tokens``, ``output_tokens`` and, where the
        provider tells them, cached tokens), None where the price is unknown. ``answered`` is the
        model's name in the reply, which is tried first."""
        for model in (answered, self._model):
            found = self._calculated(usage, model) if model else None
            if found is not None:
                return float(found.total_price)
        return None

    def snapshot(self) -> dict[str, Any]:
        """The price that is used, to be stored; ``price`` is None where it is unknown, else US
        dollars for a million tokens (``*_mtok``) as the table has them."""
        from genai_prices import Usage

        found = self._calculated(Usage(input_tokens=1, output_tokens=1), self._model)
        price = None
        if found is not None:
            listed = vars(found.model_price).items()
            price = {k: str(v) for k, v in listed if v is not None and not k.startswith("_")}
        return {
            "table": f"genai-prices {version('genai-prices')}",
            "provider": self._provider,
            "model": self._model,
            "price": price,
        }

    def write(self, folder: Path) -> None:
        """Store the snapshot as ``prices.json``."""
        write_json(folder / FILE, self.snapshot())

    def _calculated(self, usage: Any, model: str) -> Any:
        if self._provider not in PROVIDERS:
            return None
        from genai_prices import calc_price

        try:
            if self._base_url is None or self._provider != "openai":
                return calc_price(usage, model, provider_id=self._provider)
            return calc_price(usage, model, provider_api_url=self._base_url)
        except (LookupError, ValueError):
            return None
