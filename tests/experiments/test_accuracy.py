"""The benchmarks of accuracy: what they refuse, what false positives are, whose results count."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import accuracy
from experiments import cross_validation as crossval
from segmitos.console import run_script
from segmitos.errors import UsageError
from segmitos.evaluation.scoring import evaluate
from segmitos.io.datasets import Case
from segmitos.io.points.detections import Detections


@pytest.mark.parametrize(
    ("script", "wrong", "said"),
    [
        (accuracy, ["--data", "absent"], "absent"),
        (accuracy, ["--data", ".", "--model", "absent.segmitos"], "absent.segmitos"),
        (crossval, ["--data", "absent", "-o", "runs"], "absent"),
        (crossval, ["--data", ".", "-o", "runs", "--at", "absent.json"], "absent.json"),
        (crossval, ["--data", ".", "-o", "runs", "--scout", "absent.segmitos"], "absent.segmitos"),
        (crossval, ["--data", ".", "-o", "runs", "--recipe", "absent.toml"], "absent.toml"),
        (crossval, ["--data", ".", "-o", "runs", "--recipe", "proposal"], "0.5 um per pixel"),
        (crossval, ["--data", ".", "-o", "runs", "--table", "--train-only"], "--table"),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(
    script, wrong, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.__file__, *wrong])
    name = Path(script.__file__).name
    assert run_script(script.main, name) in (1, 2)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"{name}: error: ") and said in last
    assert not list(tmp_path.iterdir())


def test_thresholds_that_were_not_looked_at_are_refused(tmp_path):
    path = tmp_path / "thresholds.json"
    given = {"threshold": 0.3, "min_area_um2": 25.0, "min_score": 0.444}
    path.write_text(json.dumps({"thresholds": given}))
    assert crossval.fixed_thresholds(path) == (0.3, 25.0, 0.44)
    for odd in ({"threshold": 0.35}, {"threshold": "otsu"}, {"min_score": 0.1}):
        path.write_text(json.dumps({"thresholds": given | odd}))
        with pytest.raises(UsageError, match="must be one of"):
            crossval.fixed_thresholds(path)


def test_results_of_two_second_networks_have_two_names(tmp_path):
    names = {crossval._folder_name(tmp_path / parent / "runs") for parent in ("a", "b")}
    assert len(names) == 2 and all(name.startswith("runs-") for name in names)
    assert crossval._folder_name(tmp_path / "b" / ".." / "a" / "runs") in names


def test_false_positives_are_told_apart_by_their_labels(tmp_path):
    (tmp_path / "mitosis").mkdir()
    # x, y and the share of pathologists that called it a mitosis; the first is not marked.
    labels = "500,500,0.4\n100,104,0.2\n200,200,0\n300,300,0\n"
    (tmp_path / "mitosis" / "f_not_mitosis.csv").write_text(labels)
    mitoses = np.array([[50.0, 50.0]])
    image = tmp_path / "frames" / "x40" / "f.png"
    case = Case("f", image, mitoses, np.zeros((0, 2)), 0.25, "slide")
    x, y = np.array([(52, 50), (100, 100), (200, 201), (299, 300), (400, 400), (420, 420)], float).T
    found = {"f": Detections(x, y, np.full(6, 40.0), np.full(6, 0.9), 0.25)}
    scored = evaluate([case], found, groups="case")
    assert scored.pooled.tp == 1
    said = accuracy.mistakes([case], found, scored)
    assert said == "1 called by one of three, 2 all rejected, 2 not labelled"
