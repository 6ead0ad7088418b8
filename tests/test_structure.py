"""What the design promises of the tree as a whole: names, imports, start-up, documentation."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import segmitos
from segmitos.cli import app, main

SOURCE = Path(segmitos.__file__).parent
ROOT = SOURCE.parents[1]
FILES = sorted(SOURCE.rglob("*.py"))
# Imports go one way: a package may import those before it, and no other.
ORDER = (
    "interrupts",
    "streams",
    "errors",
    "_version",
    "io",
    "detection",
    "counting",
    "report",
    "evaluation",
    "cohort",
    "review",
    "training",
    "options",
    "commands",
    "console",
    "cli",
)
# Of these, `__init__` names all lazily and `__main__` starts the command line.
TOP = ("__init__", "__main__")


def test_the_public_names_are_what_they_say():
    assert segmitos.__all__ == sorted(segmitos.__all__, key=lambda name: (name.islower(), name))
    for name in segmitos.__all__:
        value = getattr(segmitos, name)
        assert value.__name__ == name
        assert callable(value)
        assert value.__doc__
        assert value.__module__.startswith("segmitos.")


def imports_of(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def own_imports(path: Path) -> set[str]:
    """Return the files of the package (dotted, without `segmitos.`) that a file imports."""
    found = set()
    for name in imports_of(path):
        parts = name.split(".")
        if parts[0] != "segmitos":
            continue
        inside = SOURCE.joinpath(*parts[1:])
        if inside.with_suffix(".py").is_file() and len(parts) > 1:
            found.add(".".join(parts[1:]))
        elif (inside / "__init__.py").is_file() and len(parts) > 1:
            found.add(".".join([*parts[1:], "__init__"]))
    return found


def top_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def test_every_top_level_module_has_its_place_in_the_order():
    there = {top_of(path) for path in FILES} - set(TOP)
    assert there <= set(ORDER), there - set(ORDER)


def test_torch_is_imported_in_training_alone():
    for path in FILES:
        if top_of(path) != "training":
            heavy = {name.split(".")[0] for name in imports_of(path)}
            assert not heavy & {"torch", "lightning_fabric", "torchvision"}, path


def test_a_package_imports_only_packages_before_it():
    for path in FILES:
        own = top_of(path)
        if own in TOP:
            continue
        for name in own_imports(path):
            other = name.split(".")[0]
            if other != own:
                assert ORDER.index(other) < ORDER.index(own), f"{path.name} imports {name}"


def test_no_file_imports_itself_by_way_of_others():
    graph = {}
    for path in FILES:
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if name != "__init__":
            graph[name] = own_imports(path) - {"__init__"}
    # Take away files that import nothing that is left, until none is left or a circle is.
    while free := {name for name, needs in graph.items() if not needs & set(graph)}:
        for name in free:
            del graph[name]
    assert not graph, sorted(graph)


def catches_everything(node: ast.AST) -> bool:
    """Tell whether a node catches or suppresses all exceptions."""
    everything = ("Exception", "BaseException")
    if isinstance(node, ast.ExceptHandler):
        kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        return any(k is None or (isinstance(k, ast.Name) and k.id in everything) for k in kinds)
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
        return any(isinstance(a, ast.Name) and a.id in everything for a in node.args)
    return False


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("try:\n    f()\nexcept Exception:\n    pass", True),
        ("try:\n    f()\nexcept (OSError, BaseException):\n    pass", True),
        ("try:\n    f()\nexcept:\n    pass", True),
        ("with contextlib.suppress(Exception):\n    f()", True),
        ("with contextlib.suppress(OSError):\n    f()", False),
        ("try:\n    f()\nexcept OSError:\n    pass", False),
    ],
)
def test_what_catches_everything_is_seen(code, expected):
    assert any(map(catches_everything, ast.walk(ast.parse(code)))) == expected


def test_no_file_catches_everything_or_is_too_long():
    for path in FILES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 400, path
        for node in ast.walk(ast.parse(text)):
            assert not catches_everything(node), f"{path}:{getattr(node, 'lineno', 0)}"


@pytest.mark.parametrize(
    "module", ["segmitos", "segmitos.detection.pipeline", "segmitos.cli", "segmitos.cohort.run"]
)
def test_start_up_loads_nothing_heavy(module):
    heavy = (
        *("torch", "scipy", "onnxruntime", "matplotlib", "pandas", "jinja2", "openslide", "dask"),
        # Of formats that most inputs are not of.
        *("segmitos.io.slide.openslide", "segmitos.io.slide.tiff_scale", "xml.etree"),
    )
    code = f"import sys, {module}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def verbs() -> list[list[str]]:
    """Return every verb of the command line, those in groups by both words."""
    found = []
    for name, command in app.commands.items():
        inner = getattr(command, "commands", None)
        found += [[name, sub] for sub in inner] if inner else [[name]]
    return found


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
def test_every_verb_has_an_example(verb):
    assert f"Example: segmitos {' '.join(verb)}" in help_of(verb)


def test_the_page_of_commands_is_current():
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_commands.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(SOURCE.parent)},
    )
    assert done.returncode == 0, done.stdout + done.stderr


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


def test_where_torch_is_missing_every_name_is_there_and_training_says_what_to_install():
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'lightning_fabric', 'onnx')))\n"
        "import pydoc, segmitos\n"
        "from segmitos import *\n"
        "assert 'Train a network' in pydoc.render_doc(segmitos.train)\n"
        "pydoc.render_doc(segmitos), Recipe()\n"
        "try: train([], 'run')\n"
        "except segmitos.SegMitosError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == (
        "training needs torch, lightning-fabric, onnx, which are not installed: in the source "
        "folder, pip install '.[train]'\n"
    )


@pytest.mark.parametrize(
    "verb",
    [
        ["train", "points:DIR", "-o", "run"],
        ["crossval", "points:DIR", "-o", "run"],
        ["dataset", "audit", "points:DIR", "-o", "audit"],
        ["model", "export", "run", "-o", "a.segmitos"],
        ["model", "combine", "a.segmitos", "b.segmitos", "-o", "c.segmitos"],
        ["model", "quantize", "points:DIR", "-m", "a.segmitos", "-o", "c.segmitos"],
    ],
    ids=lambda verb: " ".join(verb[:2]),
)
def test_a_verb_that_needs_torch_says_so_where_it_is_missing(verb, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(verb) == 2
    assert "training needs torch, which is not installed" in capsys.readouterr().err
