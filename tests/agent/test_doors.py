"""The whole door: recording, resuming after a kill, replay, budget, repair, prices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.agent import calls, spent
from engine.agent.answers import code_of
from engine.agent.doors import door
from engine.agent.llm import BudgetSpent, FormatFailure, LlmError, Message, ReplayMiss, Request
from engine.config import CONF
from engine.errors import UsageError, line
from engine.schema import Config, LlmBudget, LlmConfig
from tests.agent.server import Script, answer, serving, stall, status

CommandLine = Callable[..., "subprocess.CompletedProcess[str]"]
Composed = Callable[..., Config]
SCHEMA = {
    "type": "object",
    "properties": {"title": {"type": "string"}, "steps": {"type": "integer", "minimum": 1}},
    "required": ["title", "steps"],
    "additionalProperties": False,
}


def config(script: Script, **rest: Any) -> LlmConfig:
    given: dict[str, Any] = {"model": "tiny", "timeout_s": 20.0, "base_url": script.url}
    return LlmConfig(name="vllm", **(given | rest))


def ask(text: str, **rest: Any) -> Request:
    return Request(rest.pop("role", "planner"), (Message("user", text),), **rest)


def test_recorded_calls_are_answered_from_the_file_and_never_sent_again(tmp_path: Path) -> None:
    with serving([answer("one"), answer("two"), answer("three")]) as script:
        model = door(config(script), tmp_path)
        first = [model.complete(ask(text)).text for text in ("a", "a", "b")]
        assert first == ["one", "two", "three"]
        again = door(config(script), tmp_path)
        assert [again.complete(ask(text)).text for text in ("a", "a", "b")] == first
        assert len(script.seen) == 3
    recorded = calls.read(tmp_path / "calls.jsonl")
    assert [entry.occurrence for entry in recorded] == [0, 1, 0]
    assert len({entry.key for entry in recorded}) == 3


def test_another_model_setting_or_schema_is_another_call(tmp_path: Path) -> None:
    with serving([answer("{}") for _ in range(5)]) as script:
        for changed, asked in (
            ({}, ask("a")),
            ({"model": "large"}, ask("a")),
            ({"temperature": 0.5}, ask("a")),
            ({}, ask("a", settings={"temperature": 0.5, "seed": 1})),
            ({}, ask("a", schema={"type": "object"})),
        ):
            door(config(script, **changed), tmp_path).complete(asked)
        assert len(script.seen) == 5
        # The role and the name only say who asked and what for.
        door(config(script), tmp_path).complete(ask("a", role="coder", name="other"))
        assert len(script.seen) == 5


RESUMED = """
import sys
from pathlib import Path
from engine.agent.doors import door
from engine.agent.llm import Message, Request
from engine.schema import LlmConfig
url, folder = sys.argv[1:]
config = LlmConfig(name="vllm", model="tiny", base_url=url, timeout_s=60)
model = door(config, Path(folder))
for text in ("a", "b", "b", "c", "d"):
    print(model.complete(Request("planner", (Message("user", text),))).text, flush=True)
"""


def _study(url: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RESUMED, url, str(folder)],
        cwd=CONF.parent,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(os.name != "posix", reason="kill -9 is POSIX")
def test_a_study_killed_in_the_middle_of_a_call_resumes_without_paying_twice(
    tmp_path: Path,
) -> None:
    steps = [answer("A"), answer("B1"), answer("B2"), stall, answer("C"), answer("D")]
    with serving(steps) as script:
        study = _study(script.url, tmp_path)
        try:
            latest = time.monotonic() + 90
            while len(script.seen) < 4:
                assert time.monotonic() < latest, "the fourth call never came"
                assert study.poll() is None, "the study ended by itself"
                time.sleep(0.05)
        finally:
            study.send_signal(signal.SIGKILL)
            told = study.communicate()[0].split()
        assert told == ["A", "B1", "B2"]
        # As if the kill had struck while the fourth reply was written down.
        whole = (tmp_path / "calls.jsonl").read_text().splitlines()[-1]
        with open(tmp_path / "calls.jsonl", "a") as file:
            file.write(whole[: len(whole) // 2])
        resumed = _study(script.url, tmp_path)
        assert resumed.communicate(timeout=90)[0].split() == ["A", "B1", "B2", "C", "D"]
        assert resumed.returncode == 0
        sent = Counter(seen.last for seen in script.seen)
        # Only the call that was never answered is sent again.
        assert sent == {"a": 1, "b": 2, "c": 2, "d": 1}
        assert script.surplus == 0
    texts = [entry.reply and entry.reply.text for entry in calls.read(tmp_path / "calls.jsonl")]
    assert texts == ["A", "B1", "B2", "C", "D"]


def test_a_damaged_line_is_an_error_unless_it_is_the_torn_last_one(tmp_path: Path) -> None:
    with serving([answer("one"), answer("two"), answer("three")]) as script:
        model = door(config(script), tmp_path)
        model.complete(ask("a"))
        path = tmp_path / "calls.jsonl"
        with open(path, "a") as file:
            file.write('{"key": "torn')
        again = door(config(script), tmp_path)
        assert again.complete(ask("a")).text == "one"
        assert again.complete(ask("b")).text == "two"
        assert len(calls.read(path)) == 2
        path.write_text("damaged\n" + path.read_text())
        with pytest.raises(UsageError, match=r"calls\.jsonl is damaged in line 1"):
            door(config(script), tmp_path)


def test_a_failed_call_is_repeated_on_resuming_only_where_the_study_went_on(
    tmp_path: Path,
) -> None:
    steps = [status(400), answer("b"), status(400), answer("late c")]
    with serving(steps) as script:

        def walk() -> list[str]:
            model, told = door(config(script), tmp_path), []
            for text in ("a", "b", "c"):
                try:
                    told.append(model.complete(ask(text)).text)
                except LlmError:
                    told.append("failed")
            return told

        assert walk() == ["failed", "b", "failed"]
        # The study ended with c, so c is asked anew; a was lived with, and stays as it was.
        assert walk() == ["failed", "b", "late c"]
        assert walk() == ["failed", "b", "late c"]
        assert len(script.seen) == 4
    replayed = door(LlmConfig(name="replay", folder=str(tmp_path)), tmp_path / "again")
    with pytest.raises(LlmError, match="answered 400"):
        replayed.complete(ask("a"))
    assert replayed.complete(ask("c")).text == "late c"


def test_a_replay_gives_the_same_replies_without_any_server(tmp_path: Path) -> None:
    asked = [ask("a"), ask("a", settings={"temperature": 0.9}), ask("a"), ask("s", schema=SCHEMA)]
    steps = [answer("one"), answer("two"), answer("three"), answer('{"title": "x", "steps": 3}')]
    with serving(steps) as script:
        model = door(config(script, temperature=0.3, max_tokens=99), tmp_path / "old")
        replies = [model.complete(request) for request in asked]
    # The settings of the configuration need not be repeated: they stand in the recording.
    again = door(LlmConfig(name="replay", folder=str(tmp_path / "old")), tmp_path / "new")
    assert [again.complete(request) for request in asked] == replies
    assert again.name == "vllm:tiny"
    rows = spent.rows(calls.read(tmp_path / "new" / "calls.jsonl"))
    assert (rows[0].calls, rows[0].replayed, rows[0].input_tokens) == (0, 4, 0)
    # A replayed study is a recording too.
    third = door(LlmConfig(name="replay", folder=str(tmp_path / "new")), tmp_path / "third")
    assert [third.complete(request) for request in asked] == replies


def test_a_replay_miss_names_the_nearest_call_and_what_differs(tmp_path: Path) -> None:
    with serving([answer("one"), answer("two")]) as script:
        model = door(config(script, temperature=0.5), tmp_path)
        model.complete(ask("Plan for sd-mini.\nGoal: twice as fast.\nHardware: cpu"))
        model.complete(ask("Write the program.", role="coder"))
    first, second = (entry.key for entry in calls.read(tmp_path / "calls.jsonl"))

    def missed(request: Request) -> ReplayMiss:
        model = door(LlmConfig(name="replay", folder=str(tmp_path)), tmp_path / "new")
        with pytest.raises(ReplayMiss) as caught:
            model.complete(request)
        return caught.value

    changed = missed(ask("Plan for sd-mini.\nGoal: three times as fast.\nHardware: cpu"))
    assert changed.nearest == first
    assert first[:12] in line(changed)
    assert (
        "message 1 (user) differs: line 2 is recorded as 'Goal: twice as fast.' and now is "
        "'Goal: three times as fast.'"
    ) in line(changed)
    sampled = missed(ask("Write the program.", role="coder", settings={"temperature": 1.0}))
    assert sampled.nearest == second
    assert "temperature is 0.5, not 1.0" in line(sampled)
    assert "the schema differs" in line(missed(ask("Write the program.", schema=SCHEMA)))
    model = door(LlmConfig(name="replay", folder=str(tmp_path)), tmp_path / "other")
    model.complete(ask("Write the program.", role="coder"))
    with pytest.raises(ReplayMiss, match="this is number 2 of the same request"):
        model.complete(ask("Write the program.", role="coder"))


def test_a_replay_needs_a_recording(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no recorded call"):
        door(LlmConfig(name="replay", folder=str(tmp_path)), tmp_path / "new")


def test_a_budget_stops_before_the_next_call_and_counts_an_interrupted_run(
    tmp_path: Path,
) -> None:
    with serving([answer(text) for text in "abcdef"]) as script:
        limited = config(script, budget=LlmBudget(calls=3))
        model = door(limited, tmp_path)
        assert [model.complete(ask(text)).text for text in "ab"] == ["a", "b"]
        resumed = door(limited, tmp_path)
        assert [resumed.complete(ask(text)).text for text in "abc"] == ["a", "b", "c"]
        with pytest.raises(BudgetSpent, match=r"llm\.budget\.calls=3 is used up") as caught:
            resumed.complete(ask("d"))
        assert caught.value.what == "calls"
        assert len(script.seen) == 3
        # With a higher limit it goes on from there.
        more = door(config(script, budget=LlmBudget(calls=4)), tmp_path)
        assert [more.complete(ask(text)).text for text in "abcd"] == ["a", "b", "c", "d"]
        assert len(script.seen) == 4


def test_tokens_and_seconds_have_limits_too(tmp_path: Path) -> None:
    with serving([answer(text, tokens=(60, 40), after=0.2) for text in "abcdef"]) as script:
        for what, limits in (
            ("tokens", LlmBudget(tokens=150)),
            ("seconds", LlmBudget(seconds=0.3)),
        ):
            model = door(config(script, budget=limits), tmp_path / what)
            for text in "ab":
                model.complete(ask(text))
            with pytest.raises(BudgetSpent) as caught:
                model.complete(ask("f"))
            assert caught.value.what == what
            assert len(calls.read(tmp_path / what / "calls.jsonl")) == 2


def test_a_known_price_is_counted_and_an_unknown_one_is_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-fake-0123456789")
    said: list[str] = []
    named = "anthropic/claude-sonnet-5.5"
    with serving([answer("a", tokens=(10_000, 1000), model=named), answer("b")]) as script:
        known = config(script, budget=LlmBudget(dollars=1.0))
        known = LlmConfig(
            **{**vars(known), "name": "openrouter", "model": named, "api_key_env": "SOME_KEY"}
        )
        reply = door(known, tmp_path / "known", said.append).complete(ask("a"))
        assert reply.cost is not None
        assert 0.001 < reply.cost < 10
        assert said == []
        unknown = config(script, budget=LlmBudget(dollars=0.01))
        model = door(unknown, tmp_path / "unknown", said.append)
        assert model.complete(ask("b")).cost is None
    assert said == [
        "the price of vllm:tiny is unknown, so llm.budget.dollars cannot stop it; "
        "llm.budget.tokens can"
    ]
    kept = json.loads((tmp_path / "known" / "prices.json").read_text())
    assert kept["table"].startswith("genai-prices ")
    assert float(kept["price"]["input_mtok"]) > 0
    assert json.loads((tmp_path / "unknown" / "prices.json").read_text())["price"] is None


@pytest.mark.parametrize(
    "bad",
    [
        '{"title": "x", "ste',
        '{"title": "x", "steps": 0}',
        '{"title": "x", "steps": 3, "more": 1}',
        "I cannot do that.",
        "",
    ],
)
def test_a_reply_that_misses_its_schema_is_repaired_in_one_turn(tmp_path: Path, bad: str) -> None:
    good = 'Here it is:\n```json\n{"title": "x", "steps": 3}\n```'
    with serving([answer(bad), answer(good)]) as script:
        reply = door(config(script), tmp_path).complete(ask("Plan.", schema=SCHEMA))
    assert reply.parsed == {"title": "x", "steps": 3}
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (200, 20)
    assert len(script.seen) == 2
    if bad:
        assert script.seen[1].body["messages"][-2] == {"role": "assistant", "content": bad}
        assert "This is not what was asked for: " in script.seen[1].last
    else:
        assert script.seen[1].last.startswith("Plan.\n\nBefore, the reply is empty.")
    assert [entry.name for entry in calls.read(tmp_path / "calls.jsonl")] == ["", "repair"]


def test_a_second_wrong_reply_is_a_format_failure_with_the_reason_and_the_text(
    tmp_path: Path,
) -> None:
    with serving([answer("{}"), answer('{"title": 1, "steps": 0}'), answer("Never.")]) as script:
        model = door(config(script), tmp_path)
        with pytest.raises(FormatFailure) as caught:
            model.complete(ask("Plan.", schema=SCHEMA))
        assert len(script.seen) == 2
        assert "$.title is missing; $.steps is missing" in script.seen[1].last
    assert caught.value.text == '{"title": 1, "steps": 0}'
    assert "$.title must be string, not 1; $.steps is 0; it must be at least 1" in str(caught.value)


def test_a_reply_that_was_cut_off_is_asked_for_once_more(tmp_path: Path) -> None:
    program = "```python\nimport torch\n```"
    steps = [
        answer("```python\nimport to", finish="length", tokens=(10, 32)),
        answer(program),
        answer("x", finish="length"),
        answer("y", finish="length"),
    ]
    with serving(steps) as script:
        model = door(config(script, max_tokens=32), tmp_path)
        assert code_of(model.complete(ask("Write.", role="coder")).text) == "import torch\n"
        assert script.seen[1].last == (
            "Write.\n\nBefore, the reply was cut off after 32 tokens. Answer again: whole, "
            "without any explanation, and shorter."
        )
        with pytest.raises(FormatFailure, match=r"also when asked again; llm\.max_tokens may be"):
            model.complete(ask("Write more.", role="coder"))
        assert len(script.seen) == 4


def test_a_program_is_found_among_prose_and_other_blocks(tmp_path: Path) -> None:
    program = "import torch\n\n\ndef generate(pipe):\n    return pipe()\n"
    text = f"First\n```bash\npip install x\n```\nthen\n```python\n{program}```\n"
    text += "Use:\n```py\nrun()\n```"
    with serving([answer(text)]) as script:
        reply = door(config(script), tmp_path).complete(ask("Write.", role="coder"))
    assert code_of(reply.text) == program


def test_what_was_spent_is_told_by_role_and_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from engine.console import console

    console.cache_clear()
    steps = [answer("a", tokens=(1000, 50)), answer("b"), status(400), answer("c")]
    with serving(steps) as script:
        model = door(config(script), tmp_path)
        model.complete(ask("a"))
        model.complete(ask("b", role="coder"))
        with pytest.raises(LlmError):
            model.complete(ask("c", role="coder"))
        model.complete(ask("d", role="coder"))
    rows = spent.write(tmp_path)
    kept = json.loads((tmp_path / "spent.json").read_text())
    assert [(row["role"], row["calls"], row["failed"]) for row in kept["rows"]] == [
        ("planner", 1, 0),
        ("coder", 2, 1),
    ]
    total = kept["total"]
    assert (total["calls"], total["failed"], total["input_tokens"]) == (3, 1, 1200)
    assert (total["unpriced"], total["dollars"], total["model"]) == (3, 0, "vllm:tiny")
    from engine.console import show

    show(spent.table(rows))
    shown = capsys.readouterr().out
    console.cache_clear()
    assert "planner" in shown
    assert "1,200" in shown
    assert "unknown" in shown


def test_offline_opens_no_door(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="asks no language model"):
        door(LlmConfig(), tmp_path)


def test_configurations_say_what_is_missing_and_never_repeat_a_key(composed: Composed) -> None:
    assert composed().llm == LlmConfig()
    assert composed("llm=mailbox").llm.timeout_s is None
    key = "sk-fake-0123456789"
    for overrides, words in (
        (["llm=openai", "llm.model=null"], "type llm.model=NAME"),
        (["llm=openai", "llm.timeout_s=null"], "llm=mailbox only"),
        (["llm=replay"], "needs a recording"),
        (["llm=openai", f"llm.api_key_env={key}"], "the NAME of an environment variable"),
        (["llm=vllm", f"llm.base_url='http://u:{key}@localhost/v1'"], "no user, password"),
        (["llm=vllm", f"llm.base_url='http://localhost/v1?key={key}'"], "no user, password"),
        (["llm=vllm", "llm.base_url=localhost"], "is no address"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            composed(*overrides)
        assert key not in str(caught.value)


def test_a_pasted_key_is_refused_before_anything_stores_it(
    command_line: CommandLine, tmp_path: Path
) -> None:
    key = "sk-fake-0123456789"
    done = command_line("llm=openai", f"llm.api_key_env={key}")
    assert done.returncode == 2
    assert "never the key itself" in done.stderr
    assert key not in done.stdout + done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["openai", "anthropic", "google", "openrouter"])
def test_the_default_models_have_a_price(composed: Composed, name: str) -> None:
    from engine.agent.prices import Prices

    llm = composed(f"llm={name}").llm
    assert llm.model is not None
    assert Prices(name, llm.model, None).snapshot()["price"] is not None
