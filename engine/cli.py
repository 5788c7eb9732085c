"""The command line: spelling, checks before Hydra starts, Hydra, and errors in one line.

Nothing heavy is imported before a task runs, so that ``--help``, ``--cfg job`` and listings stay
quick.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import interrupt
from engine.asking import asked
from engine.call import Call, normalised, parse
from engine.config import CONF
from engine.errors import UsageError, line
from engine.precheck import precheck

if TYPE_CHECKING:
    from omegaconf import DictConfig

HELP = """\
DiffAgent finds the fastest way to run a diffusion model without losing quality.

  python -m engine                                     the composed techniques on the embedded model
  python -m engine 'technique=[sampler,deepcache]' technique.deepcache.interval=3
  python -m engine +sweep=ga                           the main job: search; front, report, program
  python -m engine model=sd15 hw=cuda +sweep=ga        the same on a real model
  python -m engine +sweep=quick                        minutes: only the presets that are meant for
                                                       this model and hardware; its end names the
                                                       search that goes on from them
  python -m engine +request="SDXL twice as fast, quality within 5 %"
                                                       plain language; what it is taken for is shown
                                                       first, and what you type beside it wins
  python -m engine +sweep=ga llm=openai llm.budget.dollars=5
                                                       a language model plans, writes and repairs
                                                       programs; also anthropic, google, ollama,
                                                       vllm, mailbox (a person), replay
  python -m engine +sweep=ga study=mine search.minutes=30
                                                       a named study; the same command resumes it
  python -m engine +sweep=ga data=prompts.txt          your own prompts (one a line, or JSON lines)
  python -m engine +sweep=ga baseline=mine.py          against your own program
  python -m engine +sweep=ga workload=mixed            several sizes and batches
  python -m engine -m technique=deepcache,tome,tgate   plain grid
  python -m engine +trial=mine/17                      run a trial again
  python -m engine +trial=mine/17 +program=true        print its program
  python -m engine +trial=mine/17 +diff=baseline       the lines that differ from the baseline's
  python -m engine +experiment=ablation_search         whole studies that differ in one thing each
  python -m engine +bench=diffbench bench.sample=60    DiffBench; bench.list=true writes its tasks
  python -m engine +bench=score bench.submissions=FILE score answers of others; also +bench=export
                                                       (the requests) and +bench=serve
  python -m engine +prune=mine                         files that an ended study needs no longer;
                                                       also +prune=all, and +prune=cache
  python -m engine +prune=mine yes=true                removes them
  python -m engine +list=strategies                    or models, presets, hw, experiments, studies
  python -m engine +list=matrix model=sd15,flux hw=h100
                                                       which technique applies to which model
                                                       there, and why not
  python -m engine +doctor                             what this machine can do, and the remedies

Any key of conf/ can be set as key=value; --cfg job shows them all, debug=true shows tracebacks.
Hydra's own flags: --hydra-help. Quote values with brackets or spaces, as above.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command line; returns the exit status."""
    debug = any(re.fullmatch(r"\+*debug=(true|on|tiny)", text, re.I) for text in arguments)
    try:
        if {"--help", "-h"} & set(arguments):
            print(HELP, end="")
            return 0
        call = parse(arguments)
        shown = _listing(call)
        if shown is not None:
            return shown
        if _pruned(call):
            return 0
        call = normalised(asked(call), datetime.now())
        if not {"-sc", "--shell-completion"} & set(call.flags):
            precheck(call)
        with interrupt.recognised():
            _hydra(call)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader went away, as in `| head`; the interpreter must not write again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        else:
            print(f"error: {line(error)}", file=sys.stderr)
        return _status(error)
    return 0


def _listing(call: Call) -> int | None:
    """Answer ``+list=`` and ``+doctor``; None when the call asks for neither."""
    asked = [t for t in call.overrides if re.match(r"\+?(list(=|$)|doctor($|=true$))", t, re.I)]
    if not asked:
        return None
    name = asked[0].lstrip("+")
    others = [text.lstrip("+").partition("=") for text in call.overrides if text != asked[0]]
    filters = {key: value for key, _, value in others}
    allowed = {"model", "hw"} if name == "list=matrix" else set()
    if set(filters) - allowed or len(call.overrides) > 1 + len(filters) or call.flags:
        but = " but for model= and hw=" if allowed else ""
        raise UsageError(f"{asked[0]} stands alone{but}; leave out the other arguments")
    if name.startswith("list"):
        from engine.listing import show

        show(name.partition("=")[2], filters)
        return 0
    from engine.doctor import show as show_doctor

    return show_doctor()


def _pruned(call: Call) -> bool:
    """Answer ``+prune=``; False when the call does not ask for it."""
    if not any(re.match(r"\+?prune(=|$)", text) for text in call.overrides):
        return False
    if call.flags:
        raise UsageError(f"+prune= takes no flags; leave out {call.flags[0]}")
    from engine import prune

    prune.command(call.overrides)
    return True


def _hydra(call: Call) -> None:
    """Compose and run through Hydra; the task's own exception is raised, not Hydra's account."""
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    failures: list[Exception] = []

    def task(cfg: DictConfig) -> Any:
        settings = HydraConfig.get()
        try:
            from engine.app import run

            return run(cfg, list(settings.overrides.task))
        except Exception as error:
            if settings.mode != RunMode.RUN:
                raise
            # Hydra would print lines of its own about a single job that failed.
            failures.append(error)
            return None

    sys.path.append(str(Path(__file__).resolve().parent / "plugins"))
    sys.argv = [sys.argv[0], *call.flags, *call.overrides]
    quiet_libraries()
    # Makes Hydra raise its errors, so that they are reported in one place and one way.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(task)()
    if failures:
        raise failures[0]


def quiet_libraries() -> None:
    """Leave out the libraries' advice about parts that are not used here, such as torchvision."""
    import logging

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _status(error: Exception) -> int:
    wrong_input = isinstance(error, UsageError) or type(error).__module__.startswith("hydra.")
    return 2 if wrong_input or type(error).__module__.startswith("omegaconf.") else 1
