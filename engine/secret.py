"""Chance that nobody can foresee who does not know a study's secret.

What an untrusted program is asked must not follow from anything that it can know: a program that
knew prompts and seeds could hold its pictures ready. The secret lies in the study's folder, which
no sandboxed worker can read, so that an interrupted study goes on with the same one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

FILE = "secret.json"


@dataclass(frozen=True)
class Secret:
    """A study's secret, as a text of hexadecimal digits."""

    text: str

    @classmethod
    def of(cls, folder: Path) -> Secret:
        """The secret of a folder, made on first use; jobs in several processes get the same one.

        Raises UsageError when the file is damaged.
        """
        path = folder / FILE
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{FILE}.{os.getpid()}.partial"
        if not path.exists():
            partial.write_text(json.dumps({"secret": secrets.token_hex(16)}), encoding="utf-8")
            partial.chmod(0o600)
            # Who links first has made it: a link never replaces a file.
            with contextlib.suppress(FileExistsError):
                os.link(partial, path)
            partial.unlink()
        try:
            return cls(str(json.loads(path.read_text(encoding="utf-8"))["secret"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{path} is damaged ({type(error).__name__}); remove it, and programs of a "
                "language model are asked other prompts from now on"
            ) from None

    def number(self, purpose: str, *numbers: int) -> int:
        """A whole number below 2**63 that follows from the secret and its purpose."""
        words = json.dumps([self.text, purpose, *numbers]).encode()
        return int.from_bytes(hashlib.sha256(words).digest()[:8], "big") >> 1

    def rng(self, purpose: str, *numbers: int) -> np.random.Generator:
        import numpy as np

        return np.random.default_rng(self.number(purpose, *numbers))
