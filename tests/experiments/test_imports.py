"""Every experiment can be started: what it imports is there."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".")
    for folder in ("experiments", "benchmarks", "examples")
    for path in (ROOT / folder).rglob("*.py")
    if path.stem != "__init__"
)


@pytest.mark.parametrize("name", MODULES)
def test_a_script_outside_of_the_package_finds_what_it_imports(name):
    assert importlib.import_module(name).__doc__
