"""Published architectures with random numbers in place of weights: ``model.weights=random``.

Latency and memory are those of the published model; the pictures mean nothing. A folder holds what
a pipeline's folder holds without weights and vocabularies: ``model_index.json`` and the config of
each component. The random values are made on the target device in the wanted dtype, so that the
host never holds a copy, and follow from the component's name alone, so that every program gets the
same ones.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

STD = 0.02
"""Largest standard deviation of the weights; with norms at one, activations stay finite."""


class RandomTokenizer:
    """Token ids without a vocabulary: as many as the model takes, deterministic in the text.

    ``length`` is the length where a call asks for none, ``vocabulary`` the number of ids. The last
    id of a text is the largest one, at which text encoders of CLIP look for the end.
    """

    def __init__(self, length: int, vocabulary: int) -> None:
        self.model_max_length = length
        self.vocabulary = vocabulary
        self.added_tokens_encoder: dict[str, int] = {}

    def __call__(
        self, text: str | list[str], *, padding: Any = None, max_length: int | None = None, **_: Any
    ) -> Any:
        """Ids and attention mask of ones, N x length; what is not padded is taken to be short."""
        import torch
        from transformers import BatchEncoding

        texts = [text] if isinstance(text, str) else list(text)
        short = padding != "max_length" and max_length is None
        length = 8 if short else max_length or self.model_max_length
        rows = []
        for one in texts:
            generator = torch.Generator().manual_seed(zlib.crc32(one.encode()))
            row = torch.randint(0, self.vocabulary - 1, (length,), generator=generator)
            row[-1] = self.vocabulary - 1
            rows.append(row)
        ids = torch.stack(rows)
        return BatchEncoding({"input_ids": ids, "attention_mask": torch.ones_like(ids)})

    def tokenize(self, text: str) -> list[str]:
        """No piece of a text is a token that was added."""
        return []


def pipeline(cls: Any, folder: Path, dtype: Any, device: str, given: dict[str, Any]) -> Any:
    """A pipeline of the class over the architecture in ``folder``.

    ``given`` are whole components and settings, which are taken as they are; anything else raises
    ValueError, because it would do nothing here.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    expected, optional = cls._get_signature_keys(cls)
    unknown = sorted(set(given) - set(expected) - set(optional))
    if unknown:
        raise ValueError(f"random numbers cannot take {', '.join(unknown)}")
    parts = {name: index[name] for name in optional if name in index}
    for name in set(expected) - set(given):
        library, kind = index.get(name, (None, None))
        parts[name] = (
            None
            if library is None
            else component(folder / name, library, kind, dtype=dtype, device=device)
        )
    return cls(**{**parts, **given})


def through_disk(cls: Any, folder: Path, options: dict[str, Any], device: str, load: Any) -> Any:
    """The same where options say how weights are read, such as their quantization: they are
    written to a folder that goes again, and ``load`` reads them as any others."""
    expected, optional = cls._get_signature_keys(cls)
    whole = {name: options.pop(name) for name in {*expected, *optional} & set(options)}
    made = pipeline(cls, folder, options.get("dtype"), device, whole)
    with tempfile.TemporaryDirectory() as place:
        made.save_pretrained(place)
        for name, part in made.components.items():
            if isinstance(part, RandomTokenizer):
                whole[name] = part
        # The values need not be in memory twice.
        del made
        return load(cls, place, **whole, **options)


def component(folder: Path, library: str, kind: str, *, dtype: Any, device: str) -> Any:
    """One component: a tokenizer, a scheduler, or a network with random numbers."""
    if "Tokenizer" in kind:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        return RandomTokenizer(config["model_max_length"], config["vocab_size"])
    if kind.endswith("Scheduler"):
        return getattr(importlib.import_module(library), kind).from_pretrained(folder)
    network = skeleton(folder, library, kind)
    fill(network, dtype, device, zlib.crc32(folder.name.encode()))
    if library == "diffusers":
        # As from_pretrained does; buffers of text encoders keep their own dtype.
        for module in network.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None and buffer.is_floating_point():
                    module._buffers[name] = buffer.to(dtype)
    return network.to(device).eval()


def skeleton(folder: Path, library: str, kind: str) -> Any:
    """The network with its parameters on the meta device, where they take no memory; its buffers
    are real."""
    import accelerate

    cls = getattr(importlib.import_module(library), kind)
    with accelerate.init_empty_weights(include_buffers=False):
        if library == "diffusers":
            return cls.from_config(cls.load_config(folder))
        network = cls(cls.config_class.from_pretrained(folder))
    network.tie_weights()
    return network


def parameters(network: Any) -> int:
    """Its number of parameters; shared ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def fill(network: Any, dtype: Any, device: str, seed: int) -> None:
    """Give every parameter random values on the device: scales one, biases zero, the rest normal
    and small; what the class keeps in float32 beside float16 stays so."""
    import torch

    kept = set(getattr(network, "_keep_in_fp32_modules", None) or ())
    generator = torch.Generator(device).manual_seed(seed)
    made: dict[int, Any] = {}
    for path, module in network.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in made:
                safe = dtype == torch.float16 and kept & {*path.split("."), name}
                own = torch.float32 if safe else dtype
                made[id(parameter)] = _values(parameter.shape, name, own, device, generator)
            module._parameters[name] = made[id(parameter)]


def _values(shape: Any, name: str, dtype: Any, device: str, generator: Any) -> Any:
    import torch

    values = torch.empty(shape, dtype=dtype, device=device)
    if len(shape) < 2:
        values.fill_(1.0 if name == "weight" else 0.0)
    else:
        inputs = values[0].numel()
        values.normal_(0.0, min(STD, inputs**-0.5), generator=generator)
    return torch.nn.Parameter(values, requires_grad=False)
