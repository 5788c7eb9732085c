"""What a request names: model, techniques, number format of weights, sampler."""

from __future__ import annotations

import re
from collections.abc import Mapping

from engine import catalogue
from engine.errors import UsageError
from engine.phrasing import vocabulary
from engine.phrasing.words import Words, contradiction, one
from engine.reading import Value
from engine.reading.mirrors import MIRRORS
from engine.strategy import find


def model_of(words: Words, default: str | None, wins: bool) -> tuple[str, str | None]:
    """The model's name in conf/model, with what it starts from; and the ControlNet's hub id."""
    controlnet = _net(words)
    ids: dict[str, str] = {}
    # Those that start from an image or a control image run the same weights.
    for name, entry in sorted(_entries(), key=lambda row: row[1]["task"] in ("image", "control")):
        ids.setdefault(entry["id"], name)
    ids |= {mirror: ids[own] for mirror, own in MIRRORS.items() if own in ids}
    table = [(re.escape(text.lower()), name, "") for text, name in ids.items()]
    names = [name for name, _ in _entries()]
    table += [(re.escape(name), name, "") for name in names if "-" in name]
    # Longer words first: "sdxl-turbo" is not "sdxl".
    table.sort(key=lambda row: -len(row[0]))
    rest = [(re.escape(name), name, "") for name in names if "-" not in name]
    found = one(words, "model", [*table, *vocabulary.MODELS, *rest], refusing=False)
    unknown = re.search(r"(?<![\w./])[a-z][\w.-]+/[a-z][\w.-]+(?![\w/])", words.left)
    if found is None and default is None and unknown:
        raise UsageError(
            f"the request names the model {unknown[0]!r}, which is not in the catalogue; type "
            "model=auto model.id=ORG/NAME beside it, or name one of "
            f"{', '.join(name for name, _ in _entries())}"
        )
    if wins and default is not None:
        if found not in (None, default):
            words.notes.append(f"model={default} stands in place of {found}")
        return _as_typed(words, default)
    chosen = found or default
    starts = bool(words.take(vocabulary.IMAGE))
    controlled = bool(words.take(vocabulary.CONTROL)) or controlnet is not None
    edges = bool(words.take(vocabulary.CANNY))
    if chosen is None:
        raise _missing(words)
    name = chosen
    if starts and controlled:
        raise contradiction("kind of pipeline", ("image to image", "ControlNet"))
    if edges and not controlled and not name.endswith("controlnet"):
        words.notes.append("edges are named without a ControlNet: none is used")
    if starts and not name.endswith("-img2img"):
        return _relative(name, "img2img", "image-to-image"), controlnet
    if controlled and not name.endswith("-controlnet"):
        return _relative(name, "controlnet", "ControlNet"), controlnet
    return name, controlnet


def _as_typed(words: Words, name: str) -> tuple[str, str | None]:
    """A model that was chosen elsewhere, whatever the request says of its kind."""
    said = (
        words.take(vocabulary.IMAGE),
        words.take(vocabulary.CONTROL),
        words.take(vocabulary.CANNY),
    )
    if any(said) and catalogue.entry(name)["task"] not in ("image", "control"):
        words.notes.append(f"model={name} starts from no image, whatever the request says")
    return name, None


def _missing(words: Words) -> UsageError:
    known = [name for name, entry in _entries() if entry["task"] in ("text", "class")]
    strategies = [name for pattern, name in vocabulary.METHODS if words.take(pattern)]
    understood = [*words.understood, *(f"method {name}" for name in strategies)]
    said = f"understood: {', '.join(understood)}" if understood else "nothing was understood"
    return UsageError(
        f"the request names no model ({said}); name one, such as SDXL or SD 1.5, or type "
        f"model=NAME beside it, with one of {', '.join(known)}"
    )


def _entries() -> list[tuple[str, Mapping[str, str]]]:
    return [(name, catalogue.entry(name)) for name in catalogue.names() if name != "auto"]


def _net(words: Words) -> str | None:
    """The hub id of a ControlNet that is named."""
    for _, entry in _entries():
        net = entry["controlnet"]
        if net and words.take(rf"(?:the controlnet )?{re.escape(net.lower())}", refusing=False):
            return net
    return None


def _relative(name: str, ending: str, words: str) -> str:
    """The entry that starts from an image or a control image."""
    wanted = f"{name}-{ending}"
    if wanted in catalogue.names():
        return wanted
    able = [known for known in catalogue.names() if known.endswith(f"-{ending}")]
    raise UsageError(f"there is no {words} pipeline of {name} here; there are {', '.join(able)}")


def methods_of(words: Words) -> dict[str, dict[str, Value]]:
    """The named techniques in their safe order, with what is said about their settings."""
    strange = words.take(vocabulary.STRANGE)
    if strange:
        raise UsageError(
            f"the request names {strange[0][0].strip()!r}, which no technique here does; "
            "python -m engine +list=strategies shows all"
        )
    found: dict[str, dict[str, Value]] = {
        method: dict(vocabulary.NAMED_SETTINGS.get(method, {}))
        for pattern, method in vocabulary.METHODS
        if words.take(pattern)
    }
    left: dict[str, str] = {}
    for pattern, method, gene, factor in vocabulary.SETTINGS:
        for match in words.take(pattern, refusing=False):
            number = next(float(group) for group in match.groups() if group) * factor
            whole = factor == 1 and gene not in ("ratio", "gate")
            value = int(number) if whole else round(number, 6)
            if method not in found:
                left[gene] = method
            elif found[method].setdefault(gene, value) != value:
                raise contradiction(f"{method} {gene}", (found[method][gene], value))
    words.notes += [f"{gene}: named without {method}, left out" for gene, method in left.items()]
    ordered = sorted(found, key=lambda name: find(name).order)
    words.understood += [f"method {name}" for name in ordered]
    return {name: found[name] for name in ordered}


def quantization(words: Words, found: dict[str, dict[str, Value]], hw: str | None) -> None:
    """Number formats of quantized weights, which name a method without its name."""
    for pattern, kind in ((r"nf4|4[- ]bit(?: quanti[sz]ation)?|int4", "nf4"),
                          (r"int-?8|8[- ]bit(?: quanti[sz]ation)?", "int8")):  # fmt: skip
        if not words.take(pattern):
            continue
        if "torchao" in found:
            found["torchao"]["kind"] = "int4_weights" if kind == "nf4" else "int8_weights"
        elif hw == "cpu" and kind == "int8":
            found.setdefault("dynamic_int8", {})
        elif "dynamic_int8" not in found:
            known = "bitsandbytes" in found
            found.setdefault("bitsandbytes", {})["kind"] = kind
            if not known:
                words.notes.append(f"{kind} weights are taken as those of bitsandbytes")
    if words.take(r"fp-?8(?: quanti[sz]ation)?|float8"):
        known = "torchao" in found
        found.setdefault("torchao", {})["kind"] = "fp8_dynamic"
        if not known:
            words.notes.append("fp8 is taken as that of torchao, weights and activations")


def scheduler_of(words: Words, flow: bool) -> str | None:
    name = one(words, "sampler", ((p, v, "") for p, v in vocabulary.SCHEDULERS))
    if words.take("karras(?: (?:sigmas|noise levels))?"):
        words.notes.append("Karras noise levels are not offered: the sampler's own are kept")
    if flow and name is not None and name not in vocabulary.FLOW:
        words.notes.append(f"{name} runs over this model's flow")
    return vocabulary.FLOW.get(name, name) if flow and name else name
