"""A replayed study is told what the recorded one was told when it began."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from engine.agent.opening import model_of
from engine.schema import Config

RECORDED = Path(__file__).with_name("recordings") / "unipc-tome"


def test_what_the_recorded_study_knew_comes_with_its_recording(
    composed: Callable[..., Config], tmp_path: Path
) -> None:
    recorded = tmp_path / "sweeps" / "mine"
    shutil.copytree(RECORDED, recorded)
    # By now the recorded study itself would be an earlier one.
    (recorded / "insights.json").write_text('{"words": ""}', encoding="utf-8")
    config = composed("llm=replay", f"llm.folder={recorded}")
    folder = tmp_path / "sweeps" / "again"
    model_of(config, folder)
    for name in ("insights.json", "secret.json"):
        assert (folder / name).read_bytes() == (recorded / name).read_bytes()
    # What a study has settled for itself stays.
    (folder / "insights.json").write_text('{"words": "own"}', encoding="utf-8")
    model_of(config, folder)
    assert json.loads((folder / "insights.json").read_text(encoding="utf-8"))["words"] == "own"
