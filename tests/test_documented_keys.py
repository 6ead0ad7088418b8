"""What scripts read: the files hold exactly the keys that docs/summary.md and others name."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.cohort.tables import COLUMNS
from segmitos.evaluation.matching import RULES
from segmitos.evaluation.threshold_grid import MAP_THRESHOLDS, SCORES
from segmitos.training.crossval import FoldCounts, summarize
from tests.factories.synthetic_fields import draw_field, write_cases
from tests.factories.toy_models import write_toy

DOCS = Path(__file__).parents[1] / "docs"


def keys_of(page: str, after: str) -> set[str]:
    """Return the names in the first column of the first table after a line of a page."""
    text = (DOCS / page).read_text(encoding="utf-8")
    rest = text[text.index(f"\n{after}") + 1 :]
    table = re.search(r"^\|.*?\n(?!\|)", rest, re.MULTILINE | re.DOTALL)
    assert table is not None
    cells = [line.split("|")[1] for line in table[0].split("\n")[2:] if line]
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_toy(tmp_path_factory.mktemp("toy") / "toy.segmitos"))


@pytest.fixture(scope="module")
def out(toy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a field that is large enough for small windows, a blank one and a broken one."""
    folder = tmp_path_factory.mktemp("images")
    Image.fromarray(draw_field(np.random.default_rng(0), 1600)[0]).save(folder / "field.png")
    Image.new("RGB", (300, 300), "white").save(folder / "blank.png")
    (folder / "broken.png").write_text("broken")
    given = ["-m", toy, "--mpp", "0.5", "--quiet", "--hotspot-area-mm2", "0.5"]
    done = ["-o", str(folder / "out"), "--log", str(folder / "log.jsonl")]
    assert main(["detect", str(folder), *given, *done, "--overwrite"]) == 1
    return folder / "out"


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["field", "blank"])
def test_the_files_of_a_result(out: Path, name: str) -> None:
    summary = json.loads((out / name / "summary.json").read_text())
    assert set(summary) == keys_of("summary.md", "## summary.json")
    run = json.loads((out / name / "run.json").read_text())
    assert set(run) == keys_of("summary.md", "## run.json")
    score = summary["score"]
    assert (score is None) == (name == "blank")
    for system in score["systems"] if score else ():
        assert set(system) == keys_of("summary.md", "`score`: ")


def test_the_tables_of_a_run(out: Path) -> None:
    assert set(COLUMNS) == keys_of("summary.md", "## cohort.csv")
    with (out / "cohort.csv").open(newline="") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert set(rows["field"]) == set(COLUMNS)
    assert [rows[name]["status"] for name in ("blank", "broken")] == ["no tissue", "failed"]
    assert rows["field"]["score_uncertain"] in ("True", "False")


def test_the_log(out: Path) -> None:
    events = [json.loads(line) for line in (out.parent / "log.jsonl").read_text().splitlines()]
    assert {event["event"] for event in events} <= keys_of("summary.md", "## detect --log")
    own = keys_of("summary.md", "## detect --json") - {"summary"} | {"seconds"}
    for event in events:
        if event["event"] == "input":
            assert set(event) == own | {"time", "event", "process"}


def test_what_detect_and_recount_print(
    out: Path, toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["-m", toy, "--mpp", "0.5", "--hotspot-area-mm2", "0.5", "--json"]
    assert main(["detect", str(out.parent), "-o", str(out), *given]) == 1
    content = printed(capsys)
    assert set(content) == {"out", "results"}
    for result in content["results"]:
        assert set(result) == keys_of("summary.md", "## detect --json")
        failed = result["name"] == "broken"
        assert result["status"] == ("failed" if failed else "skipped")
        assert (result["count"] is None, result["summary"] is None) == (failed, failed)
    assert main(["recount", str(out / "field"), "--field-diameter-mm", "0.5", "--json"]) == 0
    (changed,) = printed(capsys)
    assert set(changed) == {"name", "summary"}
    marks = ["--with", str(out / "field" / "detections.geojson"), "-o", str(tmp_path)]
    assert main(["recount", str(out / "field"), *marks, "--json"]) == 0
    (reviewed,) = printed(capsys)
    assert set(reviewed) == {"name", "review"}
    assert set(reviewed["review"]) == keys_of("summary.md", "## reviewed.json")


def test_what_evaluate_writes(toy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for case in write_cases(tmp_path / "clicks", slides=2, fields=1):
        rows = [f"{x},{y}\n" for x, y in case.mitoses_xy]
        case.image.with_suffix(".csv").write_text("".join(["x,y\n", *rows]))
    given = [f"points:{tmp_path / 'clicks'}", "--mpp", "0.25", "-m", toy, "--json", "-o"]
    assert main(["evaluate", *given, str(tmp_path / "scores")]) == 0
    content = printed(capsys)
    assert set(content) == keys_of("evaluation.md", "| key of evaluation.json")
    assert content == json.loads((tmp_path / "scores" / "evaluation.json").read_text())
    rules = json.loads((tmp_path / "scores" / "rules.json").read_text())
    assert set(rules) == set(RULES)
    for rule in rules.values():
        assert set(rule) == set(content) - {"program", "models", "warnings"}
    assert main(["evaluate", *given, str(tmp_path / "tuned"), "--tune"]) == 0
    tuned = printed(capsys)
    assert set(tuned) == keys_of("evaluation.md", "| key of thresholds.json")
    assert tuned == json.loads((tmp_path / "tuned" / "thresholds.json").read_text())


def test_no_name_of_a_case_is_a_formula(toy: str, tmp_path: Path) -> None:
    (case,) = write_cases(tmp_path / "clicks", slides=1, fields=1)
    image = case.image.rename(case.image.with_name(f"=1+1{case.image.suffix}"))
    image.with_suffix(".csv").write_text("x,y\n30,40\n")
    given = [f"points:{tmp_path / 'clicks'}", "--mpp", "0.25"]
    assert main(["evaluate", *given, "-m", toy, "-o", str(tmp_path / "scores")]) == 0
    assert main(["dataset", "describe", *given, "--sheet", str(tmp_path / "sheet.png")]) == 0
    for path in (tmp_path / "scores" / "cases.csv", tmp_path / "sheet.csv"):
        with path.open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (row["case"], row["slide"]) == ("'=1+1", "'=1+1"), path


def test_what_crossval_writes() -> None:
    named = keys_of("training.md", "| key of crossval.json")
    table = np.ones((len(MAP_THRESHOLDS), 3, len(SCORES), 3), np.int32)
    content = summarize([FoldCounts("fold-1", 0, {"A": table}, {}, {})])
    assert set(content) | {"program", "settings"} == named
    (row,) = content["rows"]
    counts = {"common", "held_out", "own_best", "crops"}
    assert set(row) == {"fold", "seed", "slides"} | counts <= named | {"fold", "seed", "slides"}
