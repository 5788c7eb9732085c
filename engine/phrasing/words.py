"""The text of a request while rules take their words out of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from engine.errors import UsageError
from engine.phrasing import vocabulary

_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")

GONE = " \u00a7 "
"""What stands where words were taken out; no rule reads over it by chance."""


@dataclass
class Words:
    """What is left of a request, and what was noted on the way."""

    left: str
    request: str
    notes: list[str] = field(default_factory=list)
    understood: list[str] = field(default_factory=list)

    def take(self, pattern: str, *, refusing: bool = True) -> list[re.Match[str]]:
        """All places of a pattern as whole words, taken out of the text; those that the words
        before them deny are taken out and left out."""
        whole = re.compile(rf"(?<![\w.]){_denied(refusing)}(?:{pattern})(?!\w)")
        found = list(whole.finditer(self.left))
        self.left = re.sub(" {2,}", " ", whole.sub(GONE, self.left))
        for match in found:
            if match.groupdict().get("denied"):
                self.notes.append(f"{match[0].strip()!r} names nothing that is wanted")
        return [match for match in found if not match.groupdict().get("denied")]


def _denied(refusing: bool) -> str:
    return rf"(?P<denied>{vocabulary.NOT} )?" if refusing else ""


def plain(text: str) -> str:
    """Lower case, one kind of blank, numbers as digits."""
    low = text.lower().replace("\u00d7", "x").replace("\u00a0", " ")
    low = re.sub(r"(\d)\u00b2", r"\1^2", low)
    low = re.sub(r"[\u2010-\u2014]", "-", low)
    low = re.sub(r"\bper ?cent\b", "%", low)
    low = re.sub(rf"\b({'|'.join(_TENS)})(?:[- ]({'|'.join(_ONES[1:10])}))?\b", _tens, low)
    low = re.sub(rf"\b({'|'.join(_ONES[1:])})\b", lambda m: str(_ONES.index(m[1])), low)
    return re.sub(r"[ \t]+", " ", low)


def _tens(match: re.Match[str]) -> str:
    ones = _ONES.index(match[2]) if match[2] else 0
    return str(10 * (_TENS.index(match[1]) + 2) + ones)


def one(
    words: Words, what: str, table: Iterable[tuple[str, str, str]], refusing: bool = True
) -> str | None:
    """The one value that the table's words name; raises UsageError where they name two."""
    found: dict[str, str] = {}
    for pattern, value, note in table:
        for match in words.take(pattern, refusing=refusing):
            found.setdefault(value, match[0].strip())
            if note:
                words.notes.append(f"{match[0].strip()!r}: {note}")
    # "an H100 GPU" names one device; a narrower name says more.
    if len(found) > 1:
        found.pop("cuda", None)
    if len(found) > 1:
        raise contradiction(what, found.values())
    for value, said in found.items():
        words.understood.append(f"{what} {said!r} = {value}")
    return next(iter(found), None)


def contradiction(what: str, said: Iterable[object]) -> UsageError:
    listed = " and ".join(dict.fromkeys(map(str, said)))
    return UsageError(f"the request names more than one {what}: {listed}; name one")
