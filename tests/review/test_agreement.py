"""Agreement of readers against tables made by hand, the consensus, and what training gets of it."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import segmitos
from segmitos.errors import InputError, OutputError
from segmitos.io.datasets import load_dataset
from segmitos.review.access import Reader
from segmitos.review.agreement import (
    agreement,
    agreement_files,
    cohen_kappa,
    icc_2_1,
    krippendorff_alpha,
    weighted_kappa,
)
from segmitos.review.assisted import assisted_slides
from segmitos.review.compare import all_readings, comparison
from segmitos.review.events import read_batch
from segmitos.review.export import export_events, export_points
from segmitos.review.finish import finish
from segmitos.review.images import Images
from segmitos.review.readings import SlideReadings, Unit, consensus_label
from segmitos.review.results import Worklist
from segmitos.review.service import ForbiddenError, Service
from segmitos.review.store import Store
from tests.factories.reviews import MPP, SIDE, Server, event, make_result

POINTS = np.array([[1200.0 + 100 * k, 1400.0] for k in range(8)])


@pytest.fixture
def service(tmp_path):
    make_result(tmp_path / "results", tmp_path / "slides", points=POINTS, faint=0)
    made = Service(Worklist(tmp_path / "results"), Store.in_folder(tmp_path / "results"))
    yield made
    made.store.close()


def read(service, reader, labels, *more):
    """One reader's decisions on the eight marks in their order, signed."""
    result = service.result("made")
    model = result.key.model_hash
    events = [
        event("decide", mark=mark, label=label)
        for mark, label in zip(result.candidates.ids, labels, strict=True)
        if label
    ]
    content = {"model": model, "events": [*events, *more]}
    service.post("made", reader, read_batch(json.dumps(content).encode()))
    signed = {"model": model, "events": [event("finish")]}
    finish(service, Images(), "made", reader, read_batch(json.dumps(signed).encode()))


M, A, L, U = "mitosis", "atypical", "look-alike", "unsure"


def test_two_readers_by_hand(service):
    # Anna and Ben agree on 4 mitoses and 2 look-alikes; one each way they differ; one unsure.
    own = event("add", mark=f"own-{event('x')['id']}", x_px=1600.0, y_px=1800.0, label=M)
    same = event("add", mark=f"own-{event('x')['id']}", x_px=1604.0, y_px=1800.0, label=M)
    read(service, "Anna", [M, M, M, A, L, L, M, U], own)
    read(service, "Ben", [M, M, M, M, L, L, L, M], same)
    content = agreement(all_readings(service), draws=0)
    pair = next(one for one in content["pairs"] if (one["first"], one["second"]) == ("Anna", "Ben"))
    # Marks of Anna: 0 1 2 3 6 and the added one; of Ben: 0 1 2 3 7 and the same place. Of 7 Anna is
    # unsure.
    assert (pair["matched"], pair["only_first"], pair["only_second"]) == (5, 1, 0)
    assert pair["f"]["value"] == pytest.approx(10 / 11)
    # On the union, without the unsure one: 5 both, 2 neither, 1 differ.
    observed, chance = 7 / 8, (6 / 8) * (5 / 8) + (2 / 8) * (3 / 8)
    assert pair["kappa"]["value"] == pytest.approx((observed - chance) / (1 - chance))
    model = next(
        one for one in content["pairs"] if one["second"] == "model" and one["first"] == "Ben"
    )
    # The model has 0 to 7; Ben 0 1 2 3 7 and one that it lacks.
    assert (model["matched"], model["only_first"], model["only_second"]) == (5, 1, 3)


def test_a_mark_that_one_reader_left_undecided_counts_neither_way_in_f(service):
    read(service, "Anna", [M, M, L, None, None, None, None, None])
    read(service, "Ben", [M, None, L, M, M, None, None, None])
    pairs = agreement(all_readings(service), draws=0)["pairs"]
    found = [(one["matched"], one["only_first"], one["only_second"]) for one in pairs]
    # Anna and Ben: 0 and 2; Anna and the model: 0 1 2; Ben and the model: 0 2 3 4.
    assert found == [(1, 0, 0), (2, 0, 1), (3, 0, 1)]
    assert [one["f"]["value"] for one in pairs] == pytest.approx([1, 4 / 5, 6 / 7])


def test_coefficients_are_those_of_the_literature():
    # Shrout and Fleiss 1979, table 2: ICC(2,1) = .29.
    table = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc_2_1(np.array(table, float)) == pytest.approx(0.29, abs=0.005)
    # Krippendorff 2011, computing alpha: nominal data with missing values, .743 (values 1 to 5);
    # here its binary example without missing values: .095.
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert krippendorff_alpha(np.array([first, second], float)) == pytest.approx(0.095, abs=5e-4)
    # Cohen: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no give .4.
    votes = [[1] * 25 + [0] * 25, [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15]
    assert cohen_kappa(np.array(votes, float)) == pytest.approx(0.4)
    assert weighted_kappa(np.array([[1, 1], [2, 2], [3, 3], [1, 2]], float)) == pytest.approx(
        2 / 3, abs=0.1
    )


def test_what_cannot_be_computed_is_nan_and_not_an_error():
    assert math.isnan(cohen_kappa(np.zeros((2, 0))))
    assert math.isnan(cohen_kappa(np.ones((2, 5))))
    assert math.isnan(krippendorff_alpha(np.array([[1.0, np.nan], [np.nan, 0.0]])))
    assert math.isnan(icc_2_1(np.zeros((1, 2))))
    assert math.isnan(icc_2_1(np.zeros((3, 2))))


def made_up(rng, name, readers=("Anna", "Ben"), units=40, error=0.1):
    truth = rng.random(units) < 0.5
    votes = np.array([np.where(rng.random(units) < error, ~truth, truth) for _ in readers], float)
    places = tuple(Unit(100.0 * k, 0.0, f"c{k}") for k in range(units))
    counts = votes.sum(axis=1)
    return SlideReadings(name, 0.25, readers, places, votes, counts, 1.0 + (counts > 18))


@pytest.mark.slow
def test_intervals_hold_the_value_narrow_with_slides_and_are_the_same_each_time():
    rng = np.random.default_rng(0)
    slides = [made_up(rng, f"s{k}") for k in range(40)]
    few, many = agreement(slides[:6], 200), agreement(slides, 200)
    for content in (few, many):
        kappa = content["pairs"][0]["kappa"]
        assert kappa["low"] < kappa["value"] < kappa["high"]
    width = [c["pairs"][0]["kappa"]["high"] - c["pairs"][0]["kappa"]["low"] for c in (few, many)]
    assert width[1] < width[0]
    assert agreement(slides[:6], 200) == few
    files = agreement_files(many)
    assert set(files) == {"agreement.json", "agreement.csv", "agreement.html"}
    assert b"Krippendorff" in files["agreement.html"] and b"nan" not in files["agreement.csv"]


@pytest.mark.parametrize(
    ("labels", "rule", "label"),
    [
        ([M, M, L], "majority", M),
        ([M, L], "majority", U),
        ([L, L, M], "majority", L),
        ([A, A, M], "majority", A),
        ([M, M, L], "all", U),
        ([M, A], "all", M),
        ([M, U], "majority", U),
        ([], "majority", None),
    ],
)
def test_the_consensus_of_votes(labels, rule, label):
    assert consensus_label(labels, rule)[0] == label


def test_the_comparison_shows_where_readers_differ_to_those_who_may_see_it(service):
    read(service, "Anna", [M, M, M, A, L, L, M, M])
    anna, ben = Reader("Anna", "x" * 30), Reader("Ben", "y" * 30)
    with pytest.raises(ForbiddenError, match="finish your own"):
        comparison(service, "made", ben)
    read(service, "Ben", [M, M, M, M, L, L, L, M])
    found = comparison(service, "made", anna)
    assert found["readers"] == ["Anna", "Ben"]
    assert len(found["agreed"]) == 7
    (differing,) = found["differing"]
    assert differing["labels"] == {"Anna": M, "Ben": L}
    service.blind = True
    with pytest.raises(ForbiddenError):
        comparison(service, "made", anna)


def test_a_mark_that_one_reader_added_is_a_difference(service, tmp_path):
    own = event("add", mark=f"own-{event('x')['id']}", x_px=1600.0, y_px=1800.0, label=M)
    read(service, "Anna", [M] * 8, own)
    read(service, "Ben", [M] * 8)
    found = comparison(service, "made", Reader("Anna", "x" * 30))
    (differing,) = found["differing"]
    assert (differing["x_px"], differing["labels"]) == (1600.0, {"Anna": M})
    content = export_points(service, tmp_path / "mine")
    assert (content["mitoses"], content["unsure"]) == (8, 1)


def test_the_consensus_keeps_its_mark_of_a_cell_when_another_reader_marks_it(service):
    own = event("add", mark="own-1", x_px=1600.0, y_px=1800.0, label=M)
    read(service, "Ben", [M] * 8, own)
    read(service, "Cora", [M] * 8)
    judge = Reader("Cora", "x" * 30, True)
    (differing,) = comparison(service, "made", judge)["differing"]
    added = event("add", mark=differing["mark"], x_px=1600.0, y_px=1800.0, label=M)
    content = {"model": service.result("made").key.model_hash, "events": [added]}
    service.post("made", "consensus", read_batch(json.dumps(content).encode()), "Cora")
    # Anna, whose marks come first, has the cell 2.5 um beside.
    read(service, "Anna", [M] * 8, event("add", mark="own-2", x_px=1602.0, y_px=1800.0, label=M))
    (again,) = comparison(service, "made", judge)["differing"]
    assert again["labels"] == {"Anna": M, "Ben": M} and again["x_px"] == 1602.0
    assert again["mark"] == differing["mark"]


def test_a_moved_mark_is_exported_where_its_reader_put_it(service, tmp_path):
    mark = service.result("made").candidates.ids[0]
    x, y = service.result("made").candidates.xy[0] + 40
    read(service, "Anna", [M] * 8, event("move", mark=mark, x_px=x, y_px=y))
    export_points(service, tmp_path / "mine")
    (case,) = load_dataset(f"points:{tmp_path / 'mine'}")
    assert [x, y] in case.mitoses_xy.tolist() and case.is_reviewed(case.mitoses_xy).all()


def test_an_adjudicated_mark_goes_into_the_data_set_as_decided(service, tmp_path):
    read(service, "Anna", [M, M, M, A, L, L, M, U])
    read(service, "Ben", [M, M, M, M, L, L, L, U])
    result = service.result("made")
    settled = event("decide", mark=result.candidates.ids[6], label=L)
    content = {"model": result.key.model_hash, "events": [settled]}
    service.post("made", "consensus", read_batch(json.dumps(content).encode()), "Cora")
    majority = export_points(service, tmp_path / "one")
    assert (majority["mitoses"], majority["look_alikes"], majority["unsure"]) == (4, 2, 2)
    adjudicated = export_points(service, tmp_path / "two", rule="adjudicated")
    assert (adjudicated["mitoses"], adjudicated["look_alikes"], adjudicated["unsure"]) == (4, 3, 1)


def test_what_was_exported_is_a_data_set_with_its_regions(service, tmp_path):
    outline = [[1100, 1300], [1550, 1300], [1550, 1500], [1100, 1500]]
    read(
        service,
        "Anna",
        [M, L, U, None, M, M, M, M],
        event("region", mark="region-1", outline=outline),
    )
    content = export_points(service, tmp_path / "mine")
    assert content["slides"]["made"]["assisted"]
    (case,) = load_dataset(f"points:{tmp_path / 'mine'}")
    assert case.mpp == MPP and case.size_px == (SIDE, SIDE)
    assert sorted(case.mitoses_xy[:, 0]) == [1200, 1600, 1700, 1800, 1900]
    assert case.hard_negatives_xy.tolist() == [[1300, 1400]]
    # Unsure, and what nobody decided on.
    assert sorted(case.unsure_xy[:, 0]) == [1400, 1500]
    assert case.regions is not None
    assert case.regions.area_px2(SIDE, SIDE) == pytest.approx(450 * 200, rel=0.01)
    assert case.is_reviewed(np.array([[1200.0, 1400.0], [1600.0, 1400.0]])).tolist() == [
        True,
        False,
    ]
    assert assisted_slides([case.image]) == ["made"]
    assert assisted_slides([tmp_path / "slides" / "made.tif"]) == []
    with pytest.raises(OutputError, match="not empty"):
        export_points(service, tmp_path / "mine")


def test_without_a_screened_area_only_what_was_in_view_is_reviewed(service, tmp_path):
    read(service, "Anna", [M, None, None, None, None, None, None, L])
    export_points(service, tmp_path / "mine")
    (case,) = load_dataset(f"points:{tmp_path / 'mine'}")
    side = 32 / MPP
    assert case.regions.area_px2(SIDE, SIDE) == pytest.approx(2 * side**2, rel=0.01)
    assert not case.is_reviewed(np.array([[1500.0, 1400.0]]))[0]


def test_nothing_decided_is_said_and_events_are_lines_of_json(service, tmp_path):
    with pytest.raises(InputError, match="nothing was decided"):
        export_points(service, tmp_path / "mine")
    read(service, "Anna", [M] * 8)
    assert export_events(service, tmp_path / "events.jsonl") == 9
    lines = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {line["kind"] for line in lines} == {"decide", "finish"}
    assert all(line["reader"] == "Anna" and line["slide"] == "made" for line in lines)
    read(service, "Ben", [L] * 8)
    assert export_events(service, tmp_path / "of-ben.jsonl", ["Ben"]) == 9
    text = (tmp_path / "of-ben.jsonl").read_text()
    readers = {json.loads(line)["reader"] for line in text.splitlines()}
    assert readers == {"Ben"}


def run(*arguments) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(Path(segmitos.__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "segmitos", "review", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, env=environment,
    )  # fmt: skip


@pytest.mark.slow
def test_the_verbs_of_several_readers(service, tmp_path):
    results = tmp_path / "results"
    none = run("agreement", results, "-o", tmp_path / "none")
    assert none.returncode == 1 and none.stderr.count("\n") == 1
    read(service, "Anna", [M, M, M, A, L, L, M, U])
    read(service, "Ben", [M, M, M, M, L, L, L, M])
    done = run("agreement", results, "-o", tmp_path / "agreement", "--draws", "20")
    assert done.returncode == 0, done.stderr
    # Anna is unsure of the last mark: four of her five mitoses are Ben's other four.
    assert "Anna, Ben: 1 slide, F 0.89" in done.stdout
    assert (tmp_path / "agreement" / "agreement.html").is_file()
    done = run("export", results, "-o", tmp_path / "mine", "--readers", "Ben")
    assert done.returncode == 0 and "5 mitoses" in done.stdout, done.stderr
    unknown = run("export", results, "-o", tmp_path / "x", "--readers", "Zoe")
    assert unknown.returncode == 1 and "Zoe" in unknown.stderr


@pytest.mark.slow
def test_the_consensus_over_the_network_is_the_adjudicators_alone(made, tmp_path):
    shutil.copytree(made / "results", tmp_path / "results")
    with Server(tmp_path / "results") as server:
        about = server.client().get("/api/slides/made?as=consensus").json()
        mark = server.client().get("/api/slides/made/marks").json()["id"][0]
        post = {"model": about["model"], "events": [event("decide", mark=mark, label=M)]}
        path = "/api/slides/made/events?as=consensus"
        assert server.client("Ben").post(path, json=post).status_code == 403
        assert server.client("Anna").post(path, json=post).status_code == 200
        mine = server.client("Anna").get("/api/slides/made").json()["state"]["labels"]
        assert mine == {}
