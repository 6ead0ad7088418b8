"""What the design promises of the tree as a whole: names, imports, start-up, documentation."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import segmitos

SOURCE = Path(segmitos.__file__).parent
ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
# Imports go one way: a folder may import those of lower or equal rank, and `__init__` names all.
RANK = {"errors": 0, "io": 1, "detect": 2, "assess": 2, "learn": 3, "review": 4, "commands": 5}


def test_the_public_names_are_these():
    assert segmitos.__all__ == [
        "Case",
        "Detections",
        "Evaluation",
        "Match",
        "Model",
        "ModelSpec",
        "SegMitosError",
        "Slide",
        "Thresholds",
        "detect",
        "evaluate",
        "load_dataset",
        "match_points",
    ]
    for name in segmitos.__all__:
        assert getattr(segmitos, name).__name__.split(".")[-1] == name
        assert callable(getattr(segmitos, name))


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_torch_is_imported_in_learn_alone(path):
    if path.relative_to(SOURCE).parts[0] == "learn":
        return
    for name in imports_of(path):
        assert name.split(".")[0] not in ("torch", "lightning_fabric", "torchvision"), name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    if own not in RANK:
        return
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] == "segmitos" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= RANK[own], f"{path.name} imports {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_file_catches_everything_or_is_a_god_file(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.id if isinstance(node.type, ast.Name) else ""
            assert node.type is not None and caught not in ("Exception", "BaseException")


@pytest.mark.parametrize("module", ["segmitos", "segmitos.detect.pipeline", "segmitos.cli"])
def test_start_up_loads_nothing_heavy(module):
    heavy = ("torch", "scipy", "onnxruntime", "matplotlib", "pandas", "jinja2", "openslide", "dask")
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def verbs() -> list[list[str]]:
    return [
        *(
            [v]
            for v in ("detect", "train", "evaluate", "export", "demo", "report", "convert", "bench")
        ),
        ["dataset", "list"],
        ["dataset", "describe"],
        ["dataset", "convert"],
    ]


def help_of(verb: list[str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "segmitos", *verb, "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"COLUMNS": "300", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(SOURCE.parent)},
    )
    return done.stdout


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb_has_an_example_and_every_option_is_documented(verb):
    text = help_of(verb)
    assert f"Example: segmitos {' '.join(verb)}" in text
    documented = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    section = documented.split(f"## segmitos {' '.join(verb)}\n")[1].split("\n## ")[0]
    for option in re.findall(r"--[a-z][a-z-]+", text):
        if option != "--help":
            assert f"`{option}`" in section, option


def test_no_committed_text_names_a_package_registry():
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split("\n")
    if not any(listed):
        pytest.skip("not a git checkout")
    hosts = re.compile("|".join(["pypi" + r"\.org", "python" + "hosted", "npm" + r"js\."]))
    for name in filter(None, listed):
        path = ROOT / name
        if path.suffix in (".py", ".toml", ".txt", ".md", ".cfg", ".yml", "") and path.is_file():
            assert not hosts.search(path.read_text(encoding="utf-8", errors="ignore")), name
