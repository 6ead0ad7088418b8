"""Every command of README and docs is run as it stands, page by page, on small drawn images.

A block fenced as `sh` or `python` is run; one whose first line is `# not run: REASON` is not.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import segmitos
from tests.factories.synthetic_fields import draw_field

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What a reader waits for and a test does not.
SHORTER = {
    "--time-budget 30m": "--time-budget 40s",
    "--time-budget 5m": "--time-budget 40s",
    "examples.draw_data trial": "examples.draw_data trial --slide-px 2560 2048",
}
# Languages of blocks that are commands, and of those that are not.
RUN, SHOWN = ("sh", "python"), ("text", "toml", "json", "nginx", "yaml", "groovy")


def blocks(page: Path) -> list[tuple[str, str]]:
    return FENCE.findall(page.read_text(encoding="utf-8"))


def not_run(code: str) -> str:
    """Return the reason why a block is not run, "" where it is."""
    first = code.partition("\n")[0]
    return first.removeprefix("# not run:").strip() if first.startswith("# not run:") else ""


def commands(page: Path) -> str:
    """Return one shell script of all blocks of a page that are run, in their order."""
    parts = []
    for language, code in blocks(page):
        if language not in RUN or not_run(code):
            continue
        for long, short in SHORTER.items():
            code = code.replace(long, short)
        parts.append(
            code if language == "sh" else f"python - <<'END_OF_BLOCK'\n{code}END_OF_BLOCK\n"
        )
    return "\n".join(parts)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fenced_block_says_what_it_is(page: Path) -> None:
    for language, code in blocks(page):
        assert language in (*RUN, *SHOWN), f"{page.name}: {language!r}: {code[:60]}"
        if code.startswith("# not run"):
            assert not_run(code), f"{page.name}: a block that is not run gives no reason"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_in_fences_and_not_in_indented_blocks(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for line in text.split("\n"):
        assert not re.match(r" {4}(segmitos|make|pip|python) ", line), f"{page.name}: {line}"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs that the pages name: field.png, slides/, clicks/, cohort.csv."""
    folder = tmp_path_factory.mktemp("inputs")
    (folder / "slides").mkdir()
    (folder / "clicks").mkdir()
    for index, name in enumerate(("slide_a", "slide_b")):
        image = draw_field(np.random.default_rng(index), 512)[0]
        Image.fromarray(image).save(
            folder / "slides" / f"{name}.tif", resolution_unit=3, resolution=1e4 / 0.25
        )
    Image.fromarray(draw_field(np.random.default_rng(5), 512)[0]).save(folder / "field.png")
    for slide in (1, 2, 3, 4):
        for part in (1, 2):
            image, mitoses, _ = draw_field(np.random.default_rng(10 * slide + part), 256)
            stem = folder / "clicks" / f"tumor{slide}_{part:02}"
            Image.fromarray(image).save(stem.with_suffix(".png"))
            rows = [f"{x:.0f},{y:.0f},mitosis" for x, y in mitoses]
            stem.with_suffix(".csv").write_text("\n".join(["x,y,label", *rows]) + "\n")
    (folder / "cohort.csv").write_text(
        "path,mpp,roi,name\nslides/slide_a.tif,,,case 1\nslides/slide_b.tif,0.25,,case 2\n"
    )
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_as_they_stand(page: Path, inputs: Path, tmp_path: Path) -> None:
    here = tmp_path / "here"
    shutil.copytree(inputs, here)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, module in (("segmitos", "-m segmitos "), ("python", "")):
        (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        (bin_ / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", commands(page)],
        cwd=here,
        env={
            **os.environ,
            "PATH": f"{bin_}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)]),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_the_python_api_page_has_every_public_name() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: segmitos\.(\w+)$", page, re.MULTILINE)) == set(segmitos.__all__)


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": (\S+\.md)$", text, re.MULTILINE))
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}


LINKED = sorted({*PAGES, *ROOT.glob("*.md"), *(ROOT / "experiments").glob("*.md")})


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", FENCE.sub("", page.read_text("utf-8"))):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"
            if page.parent == ROOT / "docs":
                # The site holds what lies in docs/ alone.
                assert (page.parent / target).is_relative_to(ROOT / "docs"), target


def test_no_text_installs_from_an_index_that_does_not_have_the_package() -> None:
    pages = [*PAGES, *(ROOT / "src").rglob("*.py")]
    named = [p.name for p in pages if "install 'segmitos[" in p.read_text(encoding="utf-8")]
    assert named == []


PROGRAM = re.compile(
    r"python -m ((?:segmitos|benchmarks|experiments|examples|tests)[\w.]*)|python ([\w/]+\.py)"
)
NAMED_IN = [*PAGES, *ROOT.glob("*.md"), *(ROOT / "experiments").glob("[!H]*.md")]


@pytest.mark.parametrize("page", sorted(set(NAMED_IN)), ids=lambda page: page.name)
def test_every_program_of_ours_that_a_page_names_starts(page: Path) -> None:
    """Programs of a package are named with -m: by their path they would not find it."""
    for module, script in PROGRAM.findall(page.read_text(encoding="utf-8")):
        if script:
            assert (ROOT / script).is_file(), script
            assert not script.startswith(("benchmarks/", "experiments/", "examples/", "tests/"))
        else:
            found = importlib.util.find_spec(module.rstrip("."))
            assert found is not None, module
            if found.submodule_search_locations is not None:
                assert importlib.util.find_spec(f"{module}.__main__"), module
