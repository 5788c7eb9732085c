"""``+doctor``: what this machine can and cannot do, and the remedy."""

from __future__ import annotations

import shutil
from pathlib import Path

from engine.errors import UsageError
from engine.hardware import (
    LIBRARIES,
    Machine,
    inspect,
    library_versions,
    memory_gib,
    processor_name,
    usable_cores,
)
from engine.listing import table
from engine.models import CHECKPOINTS, untrained
from engine.prune import compile_cache, compiled, paths_of
from engine.schema import PathsConfig
from engine.strategy import Needs, registry

Row = tuple[str, str, str, str]
"""Subject, "yes" or "no", what was found, remedy."""


def show() -> int:
    """Print the findings; 1 when the main job on the miniature cannot run here."""
    versions = library_versions()
    rows: list[Row] = [
        ("processor", "yes", f"{processor_name()}, {usable_cores()} cores", ""),
        ("memory", "yes", f"{memory_gib():g} GiB", ""),
    ]
    paths = paths_of() if "hydra-core" in versions else PathsConfig("outputs", None, None, None)
    essential = [_libraries(versions), _outputs(Path(paths.outputs)), _miniature()]
    machine = _machine() if "torch" in versions else None
    rows += essential + (_device(machine) + _techniques(machine) if machine else [])
    rows += [_compiled(compile_cache(paths)), *_hub(paths.models)]
    rows += _sandbox(gpu=machine is not None and machine.device == "cuda")
    table(["subject", "usable", "found", "remedy"], rows)
    return int(any(row[1] == "no" for row in essential))


def _machine() -> Machine | None:
    try:
        return inspect()
    except (ImportError, OSError):
        return None


def _libraries(versions: dict[str, str]) -> Row:
    missing = [name for name in LIBRARIES if name not in versions]
    found = ", ".join(f"{name} {number}" for name, number in versions.items())
    if not missing:
        return "libraries", "yes", found, ""
    remedy = "pip install -e . -c constraints.txt"
    return "libraries", "no", f"missing: {', '.join(missing)}; {found}", remedy


def _outputs(folder: Path) -> Row:
    from engine.precheck import check_outputs

    try:
        check_outputs(folder)
    except UsageError as error:
        return "results", "no", str(error), "paths.outputs=FOLDER"
    free = shutil.disk_usage(_existing(folder)).free / 2**30
    return "results", "yes", f"{folder}/ can be written, {free:.0f} GiB free", ""


def _existing(folder: Path) -> Path:
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place


def _sandbox(*, gpu: bool) -> list[Row]:
    """Where programs of a language model run; it is really started, with the accelerator where
    there is one."""
    from engine.worker import sandbox

    found = [("sandbox", sandbox.probe())]
    if gpu and found[0][1].ok:
        found.append(("sandbox with CUDA", sandbox.probe(gpu=True)))
    return [(name, "yes" if f.ok else "no", f.cause, f.remedy) for name, f in found]


def _compiled(cache: Path) -> Row:
    words = compiled(cache).words()
    return "compiled code", "yes", f"{words} in {cache}; +prune=cache shows what may go", ""


def _miniature() -> Row:
    names = sorted(path.parent.name for path in CHECKPOINTS.glob("*/model_index.json"))
    if "sd-mini" in names:
        shown = [f"{n} (not trained)" if untrained(CHECKPOINTS / n) else n for n in names]
        return "miniature", "yes", ", ".join(shown), ""
    return "miniature", "no", "no weights", "python -m engine.minis.train sd-mini preset=cpu"


def _device(machine: Machine) -> list[Row]:
    if machine.device == "cuda":
        name = f"{machine.device_name}, {machine.device_memory_gib:g} GiB"
        device: Row = ("CUDA device", "yes", name, "")
    else:
        remedy = "a torch built for CUDA and an NVIDIA GPU; the miniature needs neither"
        device = ("CUDA device", "no", "none that torch sees", remedy)
    rows = [device]
    for dtype in ("bfloat16", "float16"):
        if dtype in machine.fast_dtypes:
            rows.append((dtype, "yes", f"fast on {machine.device_name}", ""))
        else:
            rows.append((dtype, "no", f"emulated or slow on {machine.device_name}", "float32"))
    return rows


def _techniques(machine: Machine) -> list[Row]:
    rows: list[Row] = []
    for strategy in registry().values():
        lacking = _lacking(strategy.needs, machine)
        rows.append(
            (
                f"technique {strategy.name}",
                "no" if lacking else "yes",
                f"needs {lacking}" if lacking else "runs here where the model allows it",
                "leave it out; a search does so by itself" if lacking else "",
            )
        )
    return rows


def _lacking(needs: Needs, machine: Machine) -> str:
    """What a strategy needs of the machine and is not there, in words; empty if nothing."""
    absent = [name for name in needs.libraries if name not in machine.versions]
    lacking = [f"the library {name}" for name in absent]
    if needs.tools and machine.device == "cpu" and not any(map(shutil.which, needs.tools)):
        lacking.append(f"one of {', '.join(needs.tools)} on the PATH")
    if needs.devices and machine.device not in needs.devices:
        lacking.append(f"the device {' or '.join(needs.devices)}")
    if needs.dtypes and not set(needs.dtypes) & set(machine.fast_dtypes):
        lacking.append(f"a fast {' or '.join(needs.dtypes)}")
    return " and ".join(lacking)


def _hub(models: str | None) -> list[Row]:
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        remedy = "unset it, or model.weights=FOLDER"
        return [("model hub", "no", "HF_HUB_OFFLINE is set", remedy)]
    token = "a token is set" if get_token() else "no token: gated models need `hf auth login`"
    return [
        ("model hub", "yes", f"downloads go to {models or constants.HF_HUB_CACHE}; {token}", "")
    ]
