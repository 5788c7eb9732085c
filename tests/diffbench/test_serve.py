"""The service for agents of others: what it tells, what it counts, what it keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

fastapi = pytest.importorskip("fastapi")

from engine.diffbench.serve import app  # noqa: E402
from engine.diffbench.submissions import read  # noqa: E402
from engine.diffbench.tasks import Task, tasks  # noqa: E402


def client(folder: Path, measured: list[str], evaluations: int = 2) -> Any:
    from fastapi.testclient import TestClient

    def lend(task: Task, program: str, number: int) -> dict[str, Any]:
        measured.append(f"{task.id} {number} {program}")
        if program == "bad":
            return {"ok": False, "stage": "load", "reason": "it breaks", "traceback": "line 1"}
        return {"ok": True, "speedup": 2.0, "speedup_low": 1.9, "speedup_high": 2.1, "loss": 0.01}

    chosen = [task for task in tasks() if task.level == 1][:3]
    return TestClient(app(chosen, lend, folder, evaluations))


def test_requests_are_told_without_what_answers_them(tmp_path: Path) -> None:
    rows = client(tmp_path, []).get("/tasks").json()
    assert [row["id"] for row in rows] == ["L1-001", "L1-002", "L1-003"]
    assert set(rows[0]) == {
        "id", "level", "request", "version", "measurements_left", "answered",
    }  # fmt: skip
    assert client(tmp_path, []).get("/tasks/L9-001").status_code == 404


def test_measurements_are_counted_failed_ones_too_and_over_a_restart(tmp_path: Path) -> None:
    done: list[str] = []
    first = client(tmp_path, done).post("/tasks/L1-001/measurements", json={"program": "bad"})
    assert first.json()["reason"] == "it breaks"
    assert first.json()["measurements_left"] == 1
    later = client(tmp_path, done)
    assert later.post("/tasks/L1-001/measurements", json={"program": "x"}).json()["speedup"] == 2.0
    assert later.post("/tasks/L1-001/measurements", json={"program": "y"}).status_code == 429
    assert done == ["L1-001 0 bad", "L1-001 1 x"]
    assert later.get("/tasks/L1-002").json()["measurements_left"] == 2


def test_an_answer_is_given_once_and_can_be_scored(tmp_path: Path) -> None:
    service = client(tmp_path, [])
    given = {"program": "print(1)", "tokens": 10, "cost": 0.5}
    assert service.put("/tasks/L1-002/answer", json=given).json()["answered"] is True
    assert service.put("/tasks/L1-002/answer", json=given).status_code == 409
    assert service.put("/tasks/L1-001/answer", json={"program": " "}).status_code == 422
    assert service.put("/tasks/L1-001/answer", json={"program": "x", "cost": -1}).status_code == 422
    (one,) = read(tmp_path / "answers.jsonl", {task.id for task in tasks()})
    assert (one.program, one.tokens, one.cost) == ("print(1)", 10, 0.5)


def test_the_service_describes_itself(tmp_path: Path) -> None:
    described = client(tmp_path, []).get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/tasks", "/tasks/{name}", "/tasks/{name}/measurements", "/tasks/{name}/answer",
    }  # fmt: skip
    assert "sandbox" in described["info"]["description"]
