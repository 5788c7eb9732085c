"""The composed configuration, read into its schema and checked once.

``python -m engine.config`` writes ``conf/technique/*.yaml`` from the strategies; with ``--check``
it only says which files are stale and exits with 1.
"""

from __future__ import annotations

import dataclasses
import re
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from engine import adopt, models
from engine.errors import UsageError
from engine.genome import from_config
from engine.llms import settled as settled_llm
from engine.lora import loras_of
from engine.requests import shapes_of
from engine.schema import BaselineConfig, Config, ModelConfig, OneOf, Parsed, Within
from engine.strategy import Strategy, Value, nearest, registry

if TYPE_CHECKING:
    from omegaconf import DictConfig

CONF = Path(__file__).resolve().parent.parent / "conf"
WRITTEN = "# Written by `python -m engine.config` from "


@dataclass(frozen=True)
class Key:
    """A leaf of the schema: its legal types and what else limits it."""

    path: str
    kinds: frozenset[type]
    rule: Within | OneOf | Parsed | None

    @classmethod
    def of(cls, path: str, hint: Any) -> Key:
        """Read a type hint, ``Annotated`` or not."""
        rule = None
        if typing.get_origin(hint) is Annotated:
            hint, rule = typing.get_args(hint)
        return cls(path, frozenset(typing.get_args(hint) or (hint,)), rule)

    def checked(self, value: object) -> Any:
        """The value in its declared type; raises UsageError that names what is allowed."""
        if isinstance(self.rule, Parsed):
            if value is not None and not isinstance(value, self.rule.kind):
                raise UsageError(f"{self.path}={value!r} is not allowed; it takes {self.allowed}")
            return self.rule.kind() if value is None and self.rule.kind is list else value
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is None and types.NoneType in self.kinds:
            return None
        if isinstance(self.rule, OneOf) and value not in self.rule.choices:
            raise UsageError(
                f"{self.path}={value!r} is not allowed{nearest(str(value), self.rule.choices)}"
            )
        if number and self.kinds & {int, float}:
            return self._number(value)
        if isinstance(value, bool) and bool in self.kinds:
            return value
        # YAML reads study=12 as a number: here it is a name.
        if str in self.kinds and (number or isinstance(value, str)):
            return str(value)
        raise UsageError(f"{self.path}={value!r} is not allowed; it takes {self.allowed}")

    @property
    def allowed(self) -> str:
        """The legal values in words."""
        if isinstance(self.rule, Parsed):
            return self.rule.words
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        text = next(word for kind, word in words.items() if kind in self.kinds)
        if isinstance(self.rule, Within):
            text += f" from {self.rule.low:.10g} to {self.rule.high:.10g}"
        return text + (" or null" if types.NoneType in self.kinds else "")

    def _number(self, value: Any) -> float:
        rule = self.rule if isinstance(self.rule, Within) else Within(value, value)
        # Also refuses what is no number at all: every comparison with it is false.
        if not rule.low <= value <= rule.high or (int in self.kinds and value != int(value)):
            raise UsageError(f"{self.path}={value} is out of bounds; it takes {self.allowed}")
        return int(value) if int in self.kinds else float(value)


def keys(cls: type = Config, prefix: str = "") -> dict[str, Key]:
    """Every leaf of the schema by its dotted path; genomes have none of their own."""
    found: dict[str, Key] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        path = prefix + name
        if dataclasses.is_dataclass(hint):
            found |= keys(typing.cast(type, hint), path + ".")
        elif name != "technique":
            found[path] = Key.of(path, hint)
    return found


def unknown_key(path: str) -> UsageError:
    """The error for a key that the schema lacks, with the nearest keys beside it."""
    if path == "local":
        return UsageError("the first line of conf/local/default.yaml must be '# @package _global_'")
    known = keys()
    parent, _, leaf = path.rpartition(".")
    if parent and any(key.startswith(parent + ".") for key in known):
        names = {key.removeprefix(parent + ".") for key in known if key.startswith(parent + ".")}
        return UsageError(f"unknown key {path!r}{nearest(leaf, names)}")
    elsewhere = [key for key in known if "." in key and key.rpartition(".")[2] == leaf]
    if elsewhere:
        return UsageError(f"unknown key {path!r}; did you mean {' or '.join(elsewhere)}?")
    return UsageError(f"unknown key {path!r}{nearest(path, {key.split('.')[0] for key in known})}")


def read(cfg: DictConfig) -> Config:
    """The composed configuration, typed and checked; raises UsageError in one line."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    root = OmegaConf.masked_copy(cfg, [str(name) for name in cfg if name != "hydra"])
    try:
        data = OmegaConf.to_container(root, resolve=True)
    except OmegaConfBaseException as error:
        raise UsageError(str(error).partition("\n")[0]) from error
    assert isinstance(data, dict)
    return from_mapping({str(name): value for name, value in data.items()})


def from_mapping(data: Mapping[str, Any]) -> Config:
    """``read`` for plain data, such as a stored ``run.json``."""
    if isinstance(data.get("model"), Mapping) and {"name", "weights"} <= set(data["model"]):
        cache = data["paths"].get("models") if isinstance(data.get("paths"), Mapping) else None
        data = {**data, "model": adopt.filled(data["model"], cache)}
    config = _settled(_build(Config, data, ""))
    # Both become a folder: none may lie elsewhere.
    for key, name in (("study", config.study), ("bench.name", config.bench.name)):
        if name is not None and not re.fullmatch(r"[\w][\w.-]*", name):
            raise UsageError(f"{key}={name!r} is not a name; use letters, digits, '.', '_' and '-'")
    if config.trial is not None and not re.fullmatch(r"[\w][\w.-]*/\d+", config.trial):
        raise UsageError(f"trial={config.trial!r} is not STUDY/NUMBER, such as +trial=mine/17")
    if config.diff not in (None, "baseline"):
        raise UsageError(f"diff={config.diff!r} is not allowed; the only choice is diff=baseline")
    if config.trial is None and (config.program or config.diff):
        raise UsageError("program and diff show a trial; name it, such as +trial=mine/17")
    return config


def _settled(config: Config) -> Config:
    """The configuration with what follows from its model; the same again changes nothing."""
    model = config.model
    model = dataclasses.replace(model, lora=loras_of(model.lora), call=keywords_of(model.call))
    model = models.as_run(model)
    goal = config.goal
    if models.unmeasured(model) is not None:
        if goal.quality == "same_image":
            raise UsageError(
                f"goal.quality=same_image needs trained weights, and {models.unmeasured(model)}; "
                "type goal.quality=prompt_score, which then bounds no loss"
            )
        goal = dataclasses.replace(goal, max_loss=None, accuracy_drop=None)
    workload = config.workload
    shapes = shapes_of(workload.shapes, model.height, model.width)  # type: ignore[arg-type]
    return dataclasses.replace(
        config,
        model=model,
        goal=goal,
        baseline=fitted(config.baseline, model),
        workload=dataclasses.replace(workload, shapes=shapes),
        llm=settled_llm(config.llm),
    )


def fitted(baseline: BaselineConfig, model: ModelConfig) -> BaselineConfig:
    """The baseline without its sampler where the model's own schedule is the stronger one: for a
    flow, which that sampler cannot integrate, and where the model takes no more steps anyway."""
    sampler = baseline.technique.get("sampler")
    if not baseline.fitted or sampler is None:
        return baseline
    if model.prediction != "flow" and model.steps > int(sampler["steps"]):
        return baseline
    rest = {name: genes for name, genes in baseline.technique.items() if name != "sampler"}
    label = " and ".join(["the model's own schedule", *rest])
    return dataclasses.replace(baseline, technique=rest, label=label)


def keywords_of(call: Mapping[str, object]) -> dict[str, Value]:
    """``model.call``, checked: plain values, and none that another key decides."""
    decided = {
        "num_inference_steps": "model.steps",
        "guidance_scale": "model.guidance_scale",
        "height": "model.height",
        "width": "model.width",
        "prompt": "prompt",
    }
    for name, value in call.items():
        if name in decided:
            raise UsageError(f"model.call.{name} is not allowed; type {decided[name]}=VALUE")
        if not name.isidentifier() or not isinstance(value, bool | int | float | str):
            raise UsageError(
                f"model.call.{name} is {value!r}; it takes a number, a text, true or false"
            )
    return {name: value for name, value in call.items() if isinstance(value, Value)}


def _build(cls: Any, data: object, prefix: str) -> Any:
    if not isinstance(data, Mapping):
        raise UsageError(f"{prefix.rstrip('.')} must be a group of keys, not {data!r}")
    hints = typing.get_type_hints(cls, include_extras=True)
    names = {item.name: item for item in dataclasses.fields(cls)}
    for name in data:
        if name not in names:
            raise unknown_key(prefix + str(name))
    values = {}
    for name, item in names.items():
        path = prefix + name
        if name not in data:
            if item.default is dataclasses.MISSING is item.default_factory:
                raise UsageError(f"key {path} is missing from the composed configuration")
        elif name == "technique":
            values[name] = from_config(data[name])
        elif dataclasses.is_dataclass(hints[name]):
            values[name] = _build(hints[name], data[name], path + ".")
        else:
            values[name] = Key.of(path, hints[name]).checked(data[name])
    return cls(**values)


def technique_yaml(strategy: Strategy) -> str:
    """The text of ``conf/technique/<name>.yaml``: the genes at their defaults."""
    source = strategy.module.__name__.replace(".", "/") + ".py"
    command = f"python -m engine technique={strategy.name}"
    for name, gene in strategy.genes.items():
        other = next((v for v in gene.values() if v != gene.default), gene.default)
        command += f" technique.{strategy.name}.{name}={_scalar(other)}"
        break
    lines = [f"# @package technique.{strategy.name}", f"{WRITTEN}{source}; edit that file."]
    lines += [f"# {command}", ""]
    for name, gene in strategy.genes.items():
        doc = " ".join(gene.doc.split()).rstrip(".")
        lines += [f"# {doc}; allowed: {gene.allowed}"]
        lines += [f"{name}: {_scalar(gene.default)}"]
    return "\n".join(lines if strategy.genes else [*lines, "{}"]) + "\n"


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def stale(folder: Path, strategies: Iterable[Strategy]) -> dict[Path, str | None]:
    """Files under ``folder`` that differ from their strategy: path to text, None to delete."""
    wanted = {folder / f"{s.name}.yaml": technique_yaml(s) for s in strategies}
    found = {path: path.read_text(encoding="utf-8") for path in folder.glob("*.yaml")}
    changed: dict[Path, str | None] = {p: t for p, t in wanted.items() if found.get(p) != t}
    gone = {p: None for p, t in found.items() if p not in wanted and WRITTEN in t}
    return changed | gone


def main(arguments: Sequence[str]) -> int:
    """Write the technique files, or with ``--check`` only name the stale ones."""
    if set(arguments) - {"--check"}:
        print("error: python -m engine.config takes --check or nothing", file=sys.stderr)
        return 2
    checking = "--check" in arguments
    folder = CONF / "technique"
    own = [s for s in registry().values() if s.module.__name__.startswith("strategies.")]
    changes = stale(folder, own)
    for path, text in changes.items():
        print("stale:" if checking else "written:", path.relative_to(CONF.parent))
        if checking:
            continue
        if text is None:
            path.unlink()
        else:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return int(bool(changes) and checking)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
