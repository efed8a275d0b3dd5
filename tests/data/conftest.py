"""The folder with real files, where there is one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """SAGE_TEST_DATA, else ../shared/data; the test is skipped where neither is."""
    named = os.environ.get("SAGE_TEST_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real market data: {folder} is not there; name its folder in SAGE_TEST_DATA")
    return folder
