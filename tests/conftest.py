"""Fixtures that every test folder may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

# A run in the background of a shell ignores Ctrl-C, and so would the programs that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data; the test is skipped where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("SEGMITOS_DATA", default))
    if not (folder / "mitos-atypia-14").is_dir():
        pytest.skip(f"no real data in {folder} (set SEGMITOS_DATA)")
    return folder


@pytest.fixture(scope="session")
def cases_dir() -> Path:
    """The folder of inputs that once went wrong; the test is skipped where there is none."""
    default = Path(__file__).resolve().parents[2] / "shared" / "cases"
    folder = Path(os.environ.get("SEGMITOS_CASES", default))
    if not (folder / "dicom_glob").is_dir():
        pytest.skip(f"no cases in {folder} (set SEGMITOS_CASES)")
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no process is left alone with them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
