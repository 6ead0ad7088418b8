"""A few mutated images of a fixed seed; more by hand with `python -m tests.fuzz`."""

from __future__ import annotations

from pathlib import Path

from tests.fuzz import images
from tests.fuzz.harness import run


def test_mutated_images_raise_nothing_but_the_errors_of_the_package(tmp_path: Path) -> None:
    findings = run(images.targets(tmp_path), 1500, 1, tmp_path)
    assert not findings, [(one.target, one.what, one.where) for one in findings]
