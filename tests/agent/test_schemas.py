"""The JSON schemas of plans and answers."""

from __future__ import annotations

from typing import Any

import pytest

from engine.agent.schemas import check_schema, faults

PLAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "title": {"type": "string", "minLength": 1, "pattern": "^[A-Z]"},
        "refines": {"type": ["integer", "null"]},
        "techniques": {
            "type": "array",
            "maxItems": 2,
            "items": {"$ref": "#/$defs/technique"},
        },
    },
    "required": ["title"],
    "additionalProperties": False,
    "$defs": {
        "technique": {
            "type": "object",
            "properties": {
                "name": {"enum": ["tome", "tgate"]},
                "ratio": {"type": "number", "minimum": 0, "exclusiveMaximum": 1},
            },
            "required": ["name"],
            "additionalProperties": {"type": ["number", "boolean"]},
        }
    },
}


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"title": "A", "refines": None, "techniques": [{"name": "tome", "ratio": 0.5}]}, []),
        ({"title": "A", "refines": 3.0}, []),
        ([], ["$ must be object, not []"]),
        ({}, ["$.title is missing"]),
        ({"title": ""}, ["the length of $.title is 0; it must be at least 1",
                         '$.title is ""; it must match ^[A-Z]']),
        ({"title": "A", "why": 1},
         ["$.why is not allowed; allowed are title, refines, techniques"]),
        ({"title": "A", "refines": True}, ["$.refines must be integer or null, not true"]),
        ({"title": "A", "refines": 1.5}, ["$.refines must be integer or null, not 1.5"]),
        ({"title": "A", "techniques": [{"name": "pab"}]},
         ['$.techniques[0].name is "pab"; it must be one of "tome", "tgate"']),
        ({"title": "A", "techniques": [{"name": "tome", "ratio": 1}]},
         ["$.techniques[0].ratio is 1; it must be less than 1"]),
        ({"title": "A", "techniques": [{"name": "tome", "ratio": -1}]},
         ["$.techniques[0].ratio is -1; it must be at least 0"]),
        ({"title": "A", "techniques": [{"name": "tome", "more": "x"}]},
         ['$.techniques[0].more must be number or boolean, not "x"']),
        ({"title": "A", "techniques": [{"name": "tome"}] * 3},
         ["the length of $.techniques is 3; it must be at most 2"]),
    ],
)  # fmt: skip
def test_each_fault_names_its_place_and_what_is_allowed(value: object, found: list[str]) -> None:
    check_schema(PLAN)
    assert faults(value, PLAN) == found


def test_alternatives_constants_and_combinations() -> None:
    either = {"anyOf": [{"const": 1}, {"type": "string", "maxLength": 2}]}
    assert faults(1, either) == faults("ab", either) == []
    assert faults("abc", either) == [
        '$ meets none of the alternatives: $ is "abc"; it must be 1 or: the length of $ is 3; it '
        "must be at most 2"
    ]
    assert faults(True, {"const": 1}) == ["$ is true; it must be 1"]
    one = {"oneOf": [{"type": "number"}, {"multipleOf": 2}]}
    assert faults(3, one) == []
    assert faults(4, one) == ["$ meets 2 of the alternatives; it must meet exactly one"]
    both = {"allOf": [{"maximum": 5}, {"exclusiveMinimum": 1}]}
    assert faults(1, both) == ["$ is 1; it must be more than 1"]
    assert faults([1, 2, 1], {"uniqueItems": True}) == ["$[2] is there twice"]
    assert faults({}, {"minProperties": 1}) != []


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"type": "object", "patternProperties": {}}, "schema has the keyword 'patternProp"),
        ({"properties": {"a": {"format": "date"}}}, r"schema\.properties\.a has the keyword"),
        ({"items": {"type": "text"}}, r"schema\.items\.type='text' is no type"),
        ({"$ref": "#/$defs/none"}, "leads nowhere"),
        ({"pattern": "["}, "unterminated"),
    ],
)
def test_a_schema_that_could_not_be_checked_whole_is_refused(
    schema: dict[str, Any], words: str
) -> None:
    with pytest.raises(Exception, match=words):
        check_schema(schema)
