"""+request= on the command line: shown, translated, and below what is typed beside it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from engine.asking import asked, rows, specification
from engine.call import parse
from engine.errors import UsageError
from engine.phrasing import by_rules

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_call_without_a_request_stays_as_it_is() -> None:
    call = parse(["model=sd15", "+sweep=ga"])
    assert asked(call) is call


def test_the_request_becomes_overrides_below_what_was_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    call = asked(parse(["+request=SDXL twice as fast", "goal.speedup=3", "model=sd21"]))
    out = capsys.readouterr().out
    assert call.overrides == (
        "goal.max_loss=0.05",
        "+sweep=ga",
        "+request=SDXL twice as fast",
        "goal.speedup=3",
        "model=sd21",
    )
    assert "note: model=sd21 stands in place of sdxl" in out
    assert "note: goal.speedup=3 of the command line stands in place of goal.speedup=2" in out
    assert "at least 2 times as fast" in out
    assert (
        "which is: python -m engine goal.max_loss=0.05 +sweep=ga goal.speedup=3 model=sd21" in out
    )


def test_a_command_that_is_repeated_with_its_own_settings_says_nothing_new(
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = asked(parse(["+request=sd15 with ToMe twice as fast"]))
    capsys.readouterr()
    again = asked(parse([*first.overrides]))
    assert again.overrides == first.overrides
    assert "stands in place" not in capsys.readouterr().out


def test_typed_techniques_leave_none_of_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    call = asked(parse(["request=sd15 with DeepCache interval 3", "technique=[tome]"]))
    assert [t for t in call.overrides if t.startswith("technique")] == ["technique=[tome]"]
    assert "stands in place of" in capsys.readouterr().out


def test_quotes_around_a_request_are_not_part_of_it() -> None:
    call = asked(parse(["--cfg", "job", "+request='SDXL twice as fast, it\\'s slow'"]))
    assert "model=sdxl" in call.overrides


def test_what_only_shows_prints_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    asked(parse(["--cfg", "job", "+request=SDXL twice as fast"]))
    assert capsys.readouterr().out == ""


def test_several_models_and_an_empty_request_are_refused() -> None:
    with pytest.raises(UsageError, match="no single model of the catalogue"):
        specification("twice as fast", ["model=sd15,sdxl"])
    with pytest.raises(UsageError, match="did you mean sd-mini or"):
        specification("twice as fast", ["model=sd-mni"])
    with pytest.raises(UsageError, match="is empty"):
        asked(parse(["+request="]))


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("llm=opnai", "unknown llm 'opnai'; did you mean openai"),
        ("llm.budget.call=3", "unknown key 'llm.budget.call'; did you mean calls"),
    ],
)
def test_a_mistyped_language_model_is_named_before_it_is_asked(typed: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        specification("make it quick", ["llm=mailbox", typed])


def test_every_line_of_the_table_says_something() -> None:
    table = dict(rows(by_rules("SD 1.5, 512x768, ToMe ratio 0.4, 20 steps, keep the steps")))
    assert table["size"] == "512 x 768 pixels (w x h)"
    assert table["techniques"] == "tome ratio=0.4"
    assert table["steps"] == "20, must stay"
    assert all(table.values())


def test_the_command_line_shows_a_request_that_it_cannot_understand(
    command_line: CommandLine,
) -> None:
    done = command_line("+request=make it nice")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the request names no model")
    assert len(done.stderr.splitlines()) == 1


def test_a_request_composes_to_its_settings(command_line: CommandLine) -> None:
    done = command_line("+request=sd-mini with DeepCache interval 4, it's fine", "--cfg", "job")
    assert done.returncode == 0, done.stderr
    assert "request: sd-mini with DeepCache interval 4, it's fine" in done.stdout.replace("''", "'")
    assert "interval: 4" in done.stdout
