"""The benchmarks of accuracy: what they refuse, what false positives are, whose results count."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from experiments import accuracy
from segmitos.console import run_script
from segmitos.evaluation.scoring import evaluate
from segmitos.io.datasets import Case
from segmitos.io.points.detections import Detections


@pytest.mark.parametrize(
    ("script", "wrong", "said"),
    [
        (accuracy, ["--data", "absent"], "absent"),
        (accuracy, ["--data", ".", "--model", "absent.segmitos"], "absent.segmitos"),
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
    assert said == "1 called by one of three, 2 all rejected, 2 not labeled"
