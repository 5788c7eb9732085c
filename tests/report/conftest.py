"""The study that the tests of the report share; none of them changes it."""

from __future__ import annotations

import pytest

from tests.report.small_study import Study, write_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return write_study(tmp_path_factory.mktemp("sweeps") / "mine")
