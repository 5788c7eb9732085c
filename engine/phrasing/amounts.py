"""The numbers of a request: size, guidance, steps, target, allowed loss."""

from __future__ import annotations

import re
from dataclasses import replace

from engine.errors import UsageError
from engine.phrasing import vocabulary
from engine.phrasing.words import Words, contradiction
from engine.specification import PLAIN, Target

NO_LOSS = 0.01
"""The same for a request that wants none: less cannot be told from the noise of a measurement."""
NUMBER = r"(\d+(?:\.\d+)?)"
UNIT = r"(ms|milliseconds?|s|secs?|seconds?)"
UNITS = {"ms": 0.001, "mi": 0.001, "s": 1.0, "se": 1.0}
"""The first two letters of a unit to its seconds."""


def size_of(words: Words) -> tuple[int | None, int | None]:
    """Height and width in pixels."""
    found: list[tuple[int, int]] = []
    unit = r"(?: ?(?:pixels?|px))?"
    for match in words.take(rf"height:? (\d+){unit}(?:,| and) width:? (\d+){unit}"):
        found.append((int(match[2]), int(match[3])))
    wide_high = (
        r"(\d+)(?: ?(?:pixels?|px))? wide(?:,| and| by) (\d+)(?: ?(?:pixels?|px))? (?:high|tall)"
    )
    for match in words.take(wide_high):
        found.append((int(match[3]), int(match[2])))
    for match in words.take(rf"(\d{{2,5}}) ?(?:x|by) ?(\d{{2,5}}){unit}"):
        width, height = int(match[2]), int(match[3])
        found.append((height, width))
        if height != width:
            words.notes.append(f"{width}x{height} is read as width x height")
    for match in words.take(r"(\d{2,5})(?:\^2)?[ -]?(?:px|pixels?)|(\d{2,5})\^2|at (\d{3,4})"):
        side = next(int(group) for group in match.groups()[1:] if group)
        found.append((side, side))
    if len(set(found)) > 1:
        raise contradiction("size", (f"{width}x{height}" for height, width in found))
    for side in (side for pair in found for side in pair):
        if side % 8 or not 8 <= side <= 8192:
            raise UsageError(f"a side of {side} pixels is not possible: a multiple of 8 up to 8192")
    return found[0] if found else (None, None)


def guidance_of(words: Words) -> float | None:
    pattern = rf"(?:guidance(?:[ _]scale)?|cfg(?: scale)?)(?: of| at| to)? ?[=:]? ?{NUMBER}"
    found = {float(match[2]) for match in words.take(pattern)}
    if len(found) > 1:
        raise contradiction("guidance scale", sorted(found))
    return next(iter(found), None)


def count_of(words: Words) -> tuple[bool, int | None]:
    """Whether the number of steps must stay, and which number is named."""
    kind = r"(?:denoising |inference |sampling |diffusion |sampler )?"
    must = r"(?:must |should |has to |have to )?"
    stay = rf"{must}(?:stays?|remains?|(?:is |are |be )?(?:kept|unchanged|fixed))"
    keeps = (
        r"(?:keep(?:ing)?|do not change|don't change|without changing|leav(?:e|ing)) "
        rf"(?:the |its |all )?(?:same )?(?:number of )?(?:\d+ )?{kind}steps",
        rf"{kind}steps {stay}",
        rf"must still (?:take|run|use|do)(?: the)? \d+ {kind}steps",
        rf"the same (?:number of )?{kind}steps",
    )
    keep = any(re.search(rf"(?<!\w)(?:{pattern})", words.left) for pattern in keeps)
    found = {int(m[2]) for m in words.take(rf"(\d+)(?: \u00a7)?[ -]{kind}steps?")}
    patterns = (
        rf"(?:number of |num[_ ])?{kind}(?:inference_)?steps? ?[=:]? ?(?:of |at |to |from )?(\d+)",
        rf"steps {stay}(?: at)? (\d+)",
    )
    for pattern in patterns:
        found |= {int(match[2]) for match in words.take(pattern)}
    if len(found) > 1:
        raise contradiction("number of steps", sorted(found))
    steps = next(iter(found), None)
    if steps is not None and not 1 <= steps <= 1000:
        raise UsageError(f"{steps} steps are not possible: 1 to 1000")
    return keep, steps


def target_of(words: Words) -> Target | None:
    base = _seconds_base(words)
    found = [*_speedups(words), *_seconds(words), *_memory(words)]
    kinds = {target.kind for target in found}
    if len(kinds) > 1:
        listed = " and ".join(sorted(kinds))
        raise UsageError(
            f"the request names several targets ({listed}); name one and set the others beside it, "
            "such as goal.memory_gib=8"
        )
    if len(set(found)) > 1:
        raise contradiction("target", (f"{target.value:g}" for target in found))
    if found and found[0].kind == "speedup" and found[0].value < 1:
        raise UsageError(f"a speed-up of {found[0].value:g} is none: name at least 1")
    if not found or found[0].kind != "seconds" or base is None:
        return found[0] if found else None
    return replace(found[0], seconds_base=base)


def _speedups(words: Words) -> list[Target]:
    factors: list[float] = []
    said = "|".join(vocabulary.TIMES)
    for match in words.take(
        rf"({said})(?: the| as| its)? ?(?:speed|fast|quick|as fast|time|latency|run ?time)"
        rf"(?: as)?"
    ):
        factors.append(vocabulary.TIMES[match[2]])
    for match in words.take(rf"{NUMBER} ?% (?:faster|quicker|more speed|speed[- ]?up)"):
        factors.append(1 + float(match[2]) / 100)
    for match in words.take(rf"(?:faster |speed[- ]?up )?by a factor of {NUMBER}"):
        factors.append(float(match[2]))
    for match in words.take(
        rf"speed[- ]?up(?: of| by)?(?: at least| about)? ?[=:]? ?{NUMBER}(?: ?x| times|-fold)?"
    ):
        factors.append(float(match[2]))
    tail = r"(?: (?:as )?(?:fast|quick)(?:er)?(?: as)?| the speed| speed[- ]?up)?"
    for match in words.take(rf"{NUMBER} ?(?:x|-?fold){tail}|{NUMBER} times{tail}"):
        factors.append(float(match[2] or match[3]))
    return [Target("speedup", factor) for factor in factors]


def _seconds_base(words: Words) -> float | None:
    """Seconds that an image takes today, as the request says of the plain pipeline or of now."""
    now = r"(?:now|today|currently|at present|so far)"
    verb = rf"(?:{now} )?(?:takes?|took|needs?|needed|runs in)(?: about)?"
    amount = rf"{NUMBER} ?{UNIT}"
    image = r"(?: (?:an|per|for an|for each|each) (?:image|picture))?"
    plain = rf"(?:{PLAIN}|unaccelerated) (?:pipeline|model|program|code|version)"
    found = [
        *words.take(rf"{plain} {verb} {amount}{image}"),
        *words.take(rf"{now},? (?:it |an image |one image )?{verb} {amount}{image}"),
        *words.take(rf"{verb} {amount}{image},? {now}"),
    ]
    seconds = {round(float(match[2]) * UNITS[match[3][:2]], 6) for match in found}
    if len(seconds) > 1:
        raise contradiction("time that an image takes", (f"{value:g} s" for value in seconds))
    return next(iter(seconds), None)


def _seconds(words: Words) -> list[Target]:
    found = []
    for match in words.take(rf"{NUMBER} ?(?:images?|pictures?) (?:per|a|each) s(?:econd)?"):
        found.append(Target("seconds", 1 / float(match[2])))
    for match in words.take(rf"{NUMBER} ?{UNIT}"):
        factor = UNITS[match[3][:2]]
        found.append(Target("seconds", round(float(match[2]) * factor, 6)))
    return found


def _memory(words: Words) -> list[Target]:
    found = words.take(rf"{NUMBER} ?(gib|gb|g)(?: of)?(?: (?:gpu |device )?(?:memory|vram|ram))?")
    if any(match[3] != "gib" for match in found):
        words.notes.append("GB of memory are taken as GiB, as makers of GPUs count them")
    return [Target("memory_gib", float(match[2])) for match in found]


def loss_of(words: Words) -> float | None:
    """The allowed loss of quality as a share."""
    kept = words.take(rf"{NUMBER} ?% of the (?:original )?(?:quality|score|clip score)")
    shares = {round(1 - float(match[2]) / 100, 6) for match in kept}
    shares |= {round(float(match[2]) / 100, 6) for match in words.take(rf"{NUMBER} ?%(?=\W|$)|$^")}
    none = (r"(?:no|without(?: any)?|zero|0) (?:visible |noticeable |real |measurable )?"
            r"(?:loss(?: of| in)?(?: image)?(?: quality)?|quality loss|losing(?: any)?"
            r"(?: image)? quality)|lossless(?:ly)?|same quality|quality (?:must not|should not) "
            r"(?:drop|fall|suffer)")  # fmt: skip
    if not shares and words.take(none, refusing=False):
        words.notes.append(f"no loss of quality is taken as at most {NO_LOSS:.0%}")
        shares = {NO_LOSS}
    if len(shares) > 1:
        raise contradiction("bound on loss", (f"{share:.2%}" for share in sorted(shares)))
    share = next(iter(shares), None)
    if share is not None and not 0 <= share < 1:
        raise UsageError(f"a loss of {share:.0%} is not possible: name one below 100 %")
    return share
