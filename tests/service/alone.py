"""Answers of fresh processes: each request by a child that has loaded the program and made nothing.

    python -m tests.service.alone PROGRAM MODEL < requests.json

Reads a list of requests as the service takes them; writes a line each, the PNG images in base64.
Loading runs once and is inherited by fork; no child ever sees what another has made.
"""

from __future__ import annotations

import base64
import json
import os
import sys
import threading
from pathlib import Path

from tests.service.app import Service, Wanted


def main() -> None:
    service = Service(Path(sys.argv[1]), sys.argv[2])
    pipe = service.program.load_pipeline(model=service.model)
    service.pipe = service.program.accelerate(pipe)
    for row in json.load(sys.stdin):
        child = os.fork()
        if child == 0:
            pictures = service.answer(Wanted(**row), threading.Event())
            print(json.dumps([base64.b64encode(p).decode() for p in pictures]), flush=True)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(f"no answer to {row}")


if __name__ == "__main__":
    main()
