"""Bubblewrap: how a process for untrusted programs is started, and whether it can be here.

Inside there is no network, no other process, no capability and no file but those that are named
here; what is written goes to memory and is gone with the process.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "bwrap"
CODE = (
    "engine/__init__.py",
    "engine/errors.py",
    "engine/needs.py",
    "engine/strategy.py",
    "engine/worker",
    "strategies",
)
"""Our own code that a worker needs; prompts, scorer, benchmark and results are not among it."""
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt/rocm")
"""Programs and libraries of the system, a compiler included."""
SETTINGS = (
    "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
    "/etc/localtime", "/sys/devices/system",
)  # fmt: skip
HOME = "/home/candidate"
TEMPORARY = 1 << 30
"""Bytes that a sandbox can write in all to each of its places for files."""
DEVICES = ("/dev/nvidia*", "/dev/nvidia-caps/*", "/dev/kfd", "/dev/dri/*")
INSTALL = "apt install bubblewrap (dnf, pacman and zypper have it under the same name)"
BY_NAME = "or run such programs without protection: sandbox=process"


@dataclass(frozen=True)
class Finding:
    """Whether the sandbox can be started here, else why not and what helps."""

    ok: bool
    cause: str
    remedy: str = ""


def argv(
    command: Sequence[str],
    *,
    readable: Iterable[Path] = (),
    environment: Mapping[str, str],
    devices: Iterable[Path] = (),
    program: str = COMMAND,
) -> list[str]:
    """The command line that runs ``command`` as the first process of a sandbox.

    ``readable`` are files and folders it may read besides the interpreter and our code, at the
    places where they are; ``devices`` are the nodes of an accelerator.
    """
    # Of what lies inside another folder that is mounted, the later mount wins: system first.
    places = [*map(Path, (*SYSTEM, *SETTINGS)), *interpreter(), *(ROOT / part for part in CODE)]
    line = [program, "--unshare-all", "--die-with-parent", "--new-session", "--as-pid-1"]
    line += ["--cap-drop", "ALL", "--clearenv", "--hostname", "candidate"]
    line += ["--proc", "/proc", "--dev", "/dev", "--mqueue", "/dev/mqueue"]
    for writable in ("/tmp", HOME, "/dev/shm"):
        line += ["--size", str(TEMPORARY), "--tmpfs", writable]
    for place in dict.fromkeys([*places, *readable]):
        line += _bound(place)
    devices = list(devices)
    if devices:
        # A driver looks for its devices there.
        line += ["--ro-bind", "/sys", "/sys"]
    for node in devices:
        line += ["--dev-bind", str(node), str(node)]
    # bubblewrap makes the folders above what it mounts, and its root, writable memory.
    line += ["--remount-ro", "/", "--remount-ro", "/dev"]
    for name, value in environment.items():
        line += ["--setenv", name, value]
    return [*line, "--chdir", HOME, "--", *command]


def _bound(place: Path) -> list[str]:
    """Mount a file or a folder for reading at its own place; nothing where there is none."""
    if place.is_symlink() and str(place) in SYSTEM:
        return ["--symlink", os.readlink(place), str(place)]
    if not place.exists():
        return []
    return ["--ro-bind", str(place.resolve()), str(place)]


def interpreter() -> list[Path]:
    """The folders of this interpreter and of its libraries."""
    found = [Path(sys.base_prefix), Path(sys.base_exec_prefix), Path(sys.prefix)]
    found += [Path(place) for place in sys.path if place.endswith("-packages")]
    # A virtual environment's interpreter is a chain of links that ends elsewhere.
    found.append(Path(os.path.realpath(sys.executable)).parent.parent)
    return [place for place in dict.fromkeys(found) if place.exists() and str(place) != "/usr"]


def accelerator_nodes() -> list[Path]:
    """Device nodes of accelerators on this machine."""
    root = Path("/")
    return sorted(p for pattern in DEVICES for p in root.glob(pattern.lstrip("/")) if p.exists())


def probe(program: str = COMMAND, *, gpu: bool = False) -> Finding:
    """Start a sandbox that runs this interpreter and look at what it can see.

    With ``gpu`` the accelerator's nodes are mounted, and the driver must answer inside.
    """
    if sys.platform != "linux":
        return Finding(False, f"bubblewrap does not exist for {sys.platform}", BY_NAME)
    if shutil.which(program) is None:
        return Finding(False, f"{program} is not installed", f"{INSTALL}; {BY_NAME}")
    line = argv(
        [sys.executable, "-I", "-c", _GPU if gpu else _LOOK],
        environment=clean_environment({}),
        devices=accelerator_nodes() if gpu else (),
        program=program,
    )
    try:
        done = subprocess.run(
            line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(False, f"{program} cannot be run: {error}", BY_NAME)
    if done.returncode == 0 and done.stdout.strip() == "closed":
        return Finding(True, "starts: no network, no other process, no file but those it needs")
    words = " ".join((done.stderr or done.stdout).split())[-300:] or f"status {done.returncode}"
    return diagnosed(words, _facts())


_LOOK = """
import os
others = [p for p in os.listdir('/proc') if p.isdecimal() and p != '1']
links = [line.split(':')[0].strip() for line in open('/proc/net/dev').readlines()[2:]]
files = [p for p in ('/etc/passwd', '/var') if os.path.exists(p)]
closed = not others and not set(links) - {'lo'} and not files and os.getpid() == 1
print('closed' if closed else f'open: processes {others}, network {links}, files {files}')
"""
_GPU = """
import ctypes
driver = ctypes.CDLL('libcuda.so.1')
count = ctypes.c_int()
status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
print('closed' if not status and count.value else f'CUDA driver: status {status}')
"""


def _facts() -> dict[str, str]:
    """What the kernel says about user namespaces, and whether this is a container."""
    names = {
        "clone": "/proc/sys/kernel/unprivileged_userns_clone",
        "max": "/proc/sys/user/max_user_namespaces",
        "apparmor": "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
    }
    found = {}
    for name, path in names.items():
        try:
            found[name] = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
    marks = ("/.dockerenv", "/run/.containerenv")
    if any(Path(mark).exists() for mark in marks):
        found["container"] = "1"
    return found


def diagnosed(words: str, facts: Mapping[str, str]) -> Finding:
    """Cause and remedy from what bubblewrap said and what the kernel says."""
    if facts.get("max") == "0" or facts.get("clone") == "0":
        switch = (
            "user.max_user_namespaces=15000"
            if facts.get("max") == "0"
            else "kernel.unprivileged_userns_clone=1"
        )
        return Finding(
            False, f"user namespaces are switched off ({words})", f"sysctl -w {switch}; {BY_NAME}"
        )
    if facts.get("container"):
        return Finding(
            False,
            f"this container allows no new namespaces ({words})",
            "start it with --security-opt seccomp=unconfined --security-opt "
            f"systempaths=unconfined (and --cap-add SYS_ADMIN where it runs as root); {BY_NAME}",
        )
    if facts.get("apparmor") == "1":
        return Finding(
            False,
            f"AppArmor restricts user namespaces ({words})",
            "add a profile for bwrap with the rule 'userns,' (docs/sandbox.md), or sysctl -w "
            f"kernel.apparmor_restrict_unprivileged_userns=0; {BY_NAME}",
        )
    return Finding(False, f"bubblewrap failed: {words}", BY_NAME)


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """All variables of a sandboxed process: nothing of the coordinator's but what is named."""
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": HOME,
        "USER": "candidate",
        "LOGNAME": "candidate",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": f"{HOME}/huggingface",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/compiled",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "DIFFUSERS_VERBOSITY": "error",
        **more,
    }
