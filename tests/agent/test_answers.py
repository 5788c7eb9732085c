"""What is read out of replies as people and models write them."""

from __future__ import annotations

import ast
import textwrap

import pytest

from engine.agent.answers import code_of, json_of
from engine.agent.llm import FormatFailure

PROGRAM = '''import torch


def load_pipeline(device):
    """Loads it."""
    return torch.nn.Identity().to(device)
'''


def test_prose_around_a_fenced_program_is_left_out() -> None:
    text = f"Sure! Here is it:\n\n```python\n{PROGRAM}```\n\nIt runs in 3 s."
    assert code_of(text) == PROGRAM
    assert code_of(text.replace("\n", "\r\n")) == PROGRAM
    assert code_of(f"<think>\n```python\nx = 1\n```\n</think>\n{text}") == PROGRAM


@pytest.mark.parametrize("label", ["python", "py", "Python", "python3", "{.python}", "python main"])
def test_labels_of_python_are_taken_as_they_come(label: str) -> None:
    assert code_of(f"~~~~{label}\n{PROGRAM}~~~~\n") == PROGRAM


def test_of_two_blocks_the_program_wins_over_fragments_and_other_languages() -> None:
    fragment = "```python\npipe = load()\n```"
    shell = "```bash\npip install a-package-with-a-very-long-name another-one another-one\n" * 9
    shell += "```"
    assert code_of(f"{fragment}\nand\n```python\n{PROGRAM}```\n{shell}") == PROGRAM
    assert code_of(f"```python\n{PROGRAM}```\nUse it so:\n{fragment}") == PROGRAM


def test_of_two_blocks_the_one_that_parses_wins_over_a_longer_one_that_does_not() -> None:
    wrong = PROGRAM + "\n# and so on, with the rest as before ...\ndef generate(:\n"
    assert code_of(f"```python\n{wrong}```\nCorrected:\n```python\n{PROGRAM}```") == PROGRAM


def test_of_two_equal_blocks_the_later_wins() -> None:
    assert code_of("```python\nx = 1\n```\nNo:\n```python\nx = 2\n```") == "x = 2\n"


def test_a_block_without_a_label_is_taken_where_none_is_labelled() -> None:
    assert code_of(f"```\n{PROGRAM}```") == PROGRAM
    assert code_of(f"```\nsome output, long and longer and longer\n```\n```py\n{PROGRAM}```") == (
        PROGRAM
    )


def test_a_fence_inside_the_program_does_not_end_it() -> None:
    program = f'{PROGRAM}\nHELP = """\n```\npython me.py\n```\n"""\nprint(HELP)\n'
    assert code_of(f"It is:\n```python\n{program}```\nDone.") == program


def test_an_indented_block_is_moved_to_the_margin() -> None:
    block = textwrap.indent(f"```python\n{PROGRAM}```", "   ")
    assert code_of(f"1. The program:\n\n{block}\n") == PROGRAM


def test_without_a_fence_the_prose_before_and_after_is_left_out() -> None:
    assert code_of(PROGRAM) == PROGRAM
    told = code_of(f"Here is the program.\n\n{PROGRAM}\nIt should be twice as fast, I think.\n")
    assert ast.dump(ast.parse(told)) == ast.dump(ast.parse(PROGRAM))


def test_a_truncated_program_is_given_as_far_as_it_goes() -> None:
    cut = PROGRAM + "\n\ndef generate(pipe, prompt):\n    return pipe("
    assert code_of(f"```python\n{cut}").strip() == cut.strip()
    assert code_of(cut).strip() == cut.strip()


def test_a_wrong_program_without_a_fence_keeps_all_its_lines() -> None:
    wrong = PROGRAM + "def generate(:\n    return None\n"
    assert code_of(wrong) == wrong


@pytest.mark.parametrize(
    "text", ["", "I cannot help with that.", "```json\n{}\n```", "Yes", "```python\n\n```", "# Hi"]
)
def test_no_program_is_a_format_failure(text: str) -> None:
    with pytest.raises(FormatFailure, match="holds no Python program") as caught:
        code_of(text)
    assert caught.value.text == text


@pytest.mark.parametrize(
    "text",
    [
        '{"a": [1, {"b": "}"}]}',
        'Here:\n```json\n{"a": [1, {"b": "}"}]}\n```\nDone {as asked}.',
        'First ```{"a": 0}``` then\n```\n{"a": [1, {"b": "}"}]}\n```',
        'The plan is {"a": [1, {"b": "}"}]} and the rest {"c": 1}.',
        '<think>{"a": 2}</think>{"a": [1, {"b": "}"}]}',
    ],
)
def test_the_json_of_a_reply_is_found(text: str) -> None:
    assert json_of(text) == {"a": [1, {"b": "}"}]}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("No.", "holds no JSON"),
        ('{"plans": [{"title": "x"}, {"title": ', "ends early"),
        ('```json\n{"plans": [{"title": "x"}', "ends early"),
        ('{"a": NaN}', "NaN is not JSON"),
        ("{'a': 1}", "holds no whole JSON"),
    ],
)
def test_what_is_no_whole_json_says_why(text: str, words: str) -> None:
    with pytest.raises(FormatFailure, match=words):
        json_of(text)
