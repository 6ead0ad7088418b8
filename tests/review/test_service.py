"""What the server does, without HTTP: counts, ranges, blind reading, signing, other models."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

from segmitos.cli import main
from segmitos.cohort.atomic_folder import OutputFolder
from segmitos.cohort.finished_results import recount_result
from segmitos.counting.corrections import corrections, read_edited
from segmitos.counting.recount import recount
from segmitos.counting.saved import read_saved
from segmitos.errors import DataError, InputError, OutputError
from segmitos.review.access import Reader
from segmitos.review.events import read_batch
from segmitos.review.export import export_events, export_points
from segmitos.review.finish import derived_file, finish, link_earlier, reopen, write_missing
from segmitos.review.images import Images
from segmitos.review.overview import training_queue, worklist_rows
from segmitos.review.results import Worklist
from segmitos.review.service import ConflictError, ForbiddenError, NotFoundError, Service
from segmitos.review.store import Store
from tests.factories.reviews import MPP, event, make_result, picture_of
from tests.factories.toy_models import write_toy

ANNA = Reader("Anna", "x" * 32, True)


@pytest.fixture
def results(tmp_path) -> Path:
    make_result(tmp_path / "results", tmp_path / "slides")
    return tmp_path / "results"


@pytest.fixture
def serve():
    """Makes services and closes their stores after the test."""
    made = []

    def make(results: Path, **settings) -> Service:
        made.append(Service(Worklist(results), Store.in_folder(results), **settings))
        return made[-1]

    yield make
    for service in made:
        service.store.close()


def batch(service: Service, *events, name: str = "made"):
    model = service.result(name).key.model_hash
    return read_batch(json.dumps({"model": model, "events": list(events)}).encode())


def ids(service: Service, detected: bool = True) -> list[str]:
    candidates = service.result("made").candidates
    return [
        one for one, d in zip(candidates.ids, candidates.is_detection, strict=True) if d == detected
    ]


def test_undecided_detections_count_as_the_model_has_them_and_make_the_range(results, serve):
    service = serve(results)
    summary = service.slide("made", "Anna")["summary"]
    hotspot = summary["windows"][0]
    model = service.result("made").summary.hotspot
    assert hotspot["score"]["count"] == model.count == hotspot["high"]
    assert hotspot["low"] == 0 and hotspot["open"] == model.count
    assert summary["undecided"] == 60 and not hotspot["settled"]
    assert "to decide" in summary["headline"]


def test_a_rejected_detection_lowers_the_count_and_a_decided_one_is_settled(results, serve):
    service = serve(results)
    marks = ids(service)
    answer = service.post(
        "made",
        "Anna",
        batch(service, *(event("decide", mark=m, label="look-alike") for m in marks)),
    )
    assert answer["summary"]["count"] == 0 and answer["summary"]["undecided"] == 0
    window = answer["summary"]["windows"][0]
    assert window["score"]["score"] == 1 and window["settled"]
    assert "cannot change any more" in answer["summary"]["headline"]
    assert (
        service.post("made", "Anna", batch(service, event("undo", mark=answer["state"]["undo"])))[
            "summary"
        ]["undecided"]
        == 1
    )


def test_where_no_window_fits_the_line_says_the_count_of_all_of_the_image(
    tmp_path, serve, monkeypatch
):
    monkeypatch.setattr("tests.factories.reviews.SIDE", 800)
    make_result(tmp_path / "small", tmp_path / "slides", count=9)
    service = serve(tmp_path / "small")
    summary = service.slide("made", "Anna")["summary"]
    assert summary["headline"].startswith("In all 9 → 9, 9 to decide. No score: the image is 1")
    assert (summary["low"], summary["high"]) == (0, 9)
    labels = zip(ids(service), ("look-alike", "mitosis", "unsure"), strict=False)
    decided = (event("decide", mark=mark, label=label) for mark, label in labels)
    summary = service.post("made", "Anna", batch(service, *decided))["summary"]
    assert summary["headline"].startswith("In all 9 → 7, 7 to decide. No score: ")
    assert (summary["count"], summary["low"], summary["high"]) == (7, 1, 8)
    (row,) = worklist_rows(service, "Anna")
    assert (row["reviewed"]["hotspot"], row["reviewed"]["count"]) == (None, 7)
    blind = serve(tmp_path / "small", blind=True).slide("made", "Anna")["summary"]
    assert blind["headline"].startswith("In all 1, ") and "→" not in blind["headline"]


def test_the_worklist_counts_decisions_on_what_the_reader_is_asked_about(results, serve):
    service = serve(results)
    others = [event("decide", mark=m, label="mitosis") for m in ids(service, detected=False)[:2]]
    own = event("add", mark="own-1", x_px=1500.0, y_px=1500.0, label="mitosis")
    all_of_them = [event("decide", mark=m, label="look-alike") for m in ids(service)]
    service.post("made", "Anna", batch(service, *others, own, *all_of_them))
    (row,) = worklist_rows(service, "Anna")
    assert (row["decided"], row["total"], row["reviewed"]["count"]) == (60, 60, 3)


def test_candidates_below_the_threshold_count_only_when_the_reader_says_so(results, serve):
    service = serve(results)
    faint = ids(service, detected=False)
    before = service.slide("made", "Anna")["summary"]["count"]
    after = service.post(
        "made", "Anna", batch(service, event("decide", mark=faint[0], label="atypical"))
    )
    assert after["summary"]["count"] == before + 1
    assert len(service.marks("made", "Anna")["id"]) == 61
    assert len(service.marks("made", "Anna", floor=0.0)["id"]) == 80


def test_sent_twice_changes_nothing_and_one_bad_event_stores_none(results, serve):
    service = serve(results)
    mark = ids(service)[0]
    first = batch(service, event("decide", mark=mark, label="mitosis"))
    assert service.post("made", "Anna", first)["stored"] == 1
    assert service.post("made", "Anna", first)["stored"] == 0
    bad = batch(
        service,
        event("decide", mark=ids(service)[1], label="unsure"),
        event("decide", mark="no", label="unsure"),
    )
    with pytest.raises(DataError, match="no mark 'no'"):
        service.post("made", "Anna", bad)
    assert service.slide("made", "Anna")["state"]["labels"] == {mark: "mitosis"}
    with pytest.raises(DataError, match="taken"):
        service.post("made", "Ben", first)


def test_another_model_is_a_conflict_and_an_unknown_slide_not_found(results, serve):
    service = serve(results)
    other = read_batch(
        json.dumps({"model": "other", "events": [event("comment", text="x")]}).encode()
    )
    with pytest.raises(ConflictError):
        service.post("made", "Anna", other)
    with pytest.raises(NotFoundError):
        service.slide("../made", "Anna")


def test_the_hotspot_follows_or_stays_where_it_was_fixed(results, serve):
    service = serve(results)
    window = service.slide("made", "Anna")["summary"]["windows"][0]["window"]
    center = (window["x_px"] + window["width_px"] / 2, window["y_px"] + window["height_px"] / 2)
    fixed = event("hotspot", mode="fixed", x_px=center[0], y_px=center[1])
    inside = service.result("made").summary.hotspot.holds(service.result("made").candidates.xy)
    marks = [
        one
        for one, held in zip(service.result("made").candidates.ids, inside, strict=True)
        if held and one in set(ids(service))
    ]
    rejected = [event("decide", mark=mark, label="look-alike") for mark in marks]
    answer = service.post("made", "Anna", batch(service, fixed, *rejected))
    assert answer["summary"]["windows"][0]["score"]["count"] == 0
    assert answer["summary"]["windows"][0]["window"]["x_px"] == pytest.approx(window["x_px"])
    followed = service.post("made", "Anna", batch(service, event("hotspot", mode="follow")))
    assert followed["summary"]["windows"][0]["score"]["count"] > 0


def test_blind_readers_get_no_score_state_or_order_of_the_model(results, serve):
    service = serve(results, blind=True)
    text = json.dumps(
        [
            service.slide("made", "Anna"),
            service.marks("made", "Anna", floor=0.0),
            training_queue(service, "Anna"),
            worklist_rows(service, "Anna"),
        ]
    )
    for word in ("detected", "threshold", '"model": {', "uncertain"):
        assert word not in text, word
    assert '"score": 0.' not in text
    shown = service.marks("made", "Anna")
    assert set(shown) == {"id", "x_px", "y_px"}
    # Among as many others, and in an order of each reader's own.
    detected = set(ids(service))
    assert detected < set(shown["id"]) and len(shown["id"]) == 80
    assert shown["id"] != service.marks("made", "Ben")["id"]
    assert service.slide("made", "Anna")["summary"]["count"] == 0
    with pytest.raises(ForbiddenError):
        service.acting(ANNA, consensus=True)
    for kind in (".json", ".csv"):
        content = derived_file(service, Images(), "made", "Anna", kind).decode()
        assert ids(service)[0] not in content and "score" not in content
    for kind in (".geojson", ".html"):
        with pytest.raises(NotFoundError):
            derived_file(service, Images(), "made", "Anna", kind)


def test_marks_and_regions_lie_on_the_image(results, serve):
    service = serve(results)
    outside = [
        event("add", mark="own-1", x_px=-50.0, y_px=10.0, label="mitosis"),
        event("move", mark=ids(service)[0], x_px=10.0, y_px=99999.0),
        event("region", mark="region-1", outline=[[0, 0], [99999, 0], [0, 99]]),
    ]
    for one in outside:
        with pytest.raises(DataError, match="lies outside the image of"):
            service.post("made", "Anna", batch(service, one))


def test_files_that_cannot_be_written_again_do_not_keep_others_from_their_review(results, serve):
    service = serve(results)
    finish(service, Images(), "made", "Anna", batch(service, event("finish")))
    (results / "reviews" / "made" / "Anna" / "reviewed.json").unlink()
    (results / "made" / "overview.jpg").unlink()
    written, problems = write_missing(service, Images())
    assert not written and problems[0].startswith("the files of Anna's review of made: cannot read")


def test_a_blind_signature_counts_what_the_reader_decided_and_no_more(results, serve):
    service = serve(results, blind=True)
    own = event("add", mark=f"own-{'a' * 8}", x_px=1000.0, y_px=1000.0, label="mitosis")
    seen = event("decide", mark=ids(service)[0], label="look-alike")
    service.post("made", "Anna", batch(service, own, seen))
    finish(service, Images(), "made", "Anna", batch(service, event("finish")))
    signed = results / "reviews" / "made" / "Anna" / "reviewed.json"
    content = json.loads(signed.read_text())
    assert content["reviewed"]["count"] == content["reviewed"]["hotspot"]["count"] == 1
    assert content["reviewed"]["score"]["systems"][0]["interval"]["count"] == 1
    assert content["tally"]["undecided"] == 0 and content["settled"]
    # QuPath's file says the same, when it is counted again.
    saved = read_saved(results / "made")
    edited = read_edited(signed.with_suffix(".geojson"), saved)
    assert recount(saved, corrections(saved, edited)).reviewed.count == 1


def test_a_signed_review_is_closed_until_the_signature_is_taken_back(results, serve):
    service = serve(results)
    marks = ids(service)
    service.post("made", "Anna", batch(service, event("decide", mark=marks[0], label="mitosis")))
    answer = finish(service, Images(), "made", "Anna", batch(service, event("finish", text="fine")))
    folder = results / "reviews" / "made" / "Anna"
    assert sorted(path.name for path in folder.iterdir()) == [
        f"reviewed{kind}" for kind in (".csv", ".geojson", ".html", ".json")
    ]
    content = json.loads((folder / "reviewed.json").read_text())
    assert content["note"] == "fine" and content["assisted"] and content["reader"] == "Anna"
    with pytest.raises(ConflictError, match="finished"):
        service.post("made", "Anna", batch(service, event("comment", text="late")))
    again = reopen(
        service, "made", "Anna", batch(service, event("undo", mark=answer["state"]["finished"]))
    )
    assert again["state"]["finished"] is None and not folder.exists()


def sign(service: Service, **more) -> dict:
    return finish(service, Images(), "made", "Anna", batch(service, event("finish") | more))


def take_back(service: Service) -> dict:
    finished = service.state(service.result("made"), "Anna").finished
    return reopen(service, "made", "Anna", batch(service, event("undo", mark=finished)))


def test_a_signature_stands_while_its_files_cannot_be_removed(results, serve):
    service = serve(results)
    sign(service)
    counts = results / "reviews" / "made" / "Anna" / "reviewed.json"
    counts.unlink()
    counts.mkdir()
    with pytest.raises(OutputError, match=r"cannot remove .*Anna/reviewed.json: "):
        take_back(service)
    assert service.state(service.result("made"), "Anna").finished
    counts.rmdir()
    assert take_back(service)["state"]["finished"] is None


def test_the_files_of_an_earlier_signature_are_written_again(results, serve):
    service = serve(results)
    sign(service)
    folder = results / "reviews" / "made" / "Anna"
    shutil.copytree(folder, results.parent / "earlier")
    take_back(service)
    service.post(
        "made", "Anna", batch(service, event("decide", mark=ids(service)[0], label="look-alike"))
    )
    sign(service, at="2026-01-03T00:00:00Z")
    # As if a kill had come between the second signature and its files.
    shutil.rmtree(folder)
    shutil.move(results.parent / "earlier", folder)
    assert write_missing(service, Images()) == ([folder], [])
    assert json.loads((folder / "reviewed.json").read_text())["tally"]["rejected"] == 1
    assert write_missing(service, Images()) == ([], [])


def test_a_signed_count_is_told_of_when_the_result_has_other_settings(results, serve, capsys):
    service = serve(results)
    headline = sign(service)["summary"]["headline"]
    assert "Signed with" not in headline
    # What changes no count is no reason to sign again.
    recount_result(OutputFolder(results, "made"), {"qupath": "detection"})
    assert main(["recount", str(results / "made"), "--hotspot-area-mm2", "2"]) == 0
    assert "signed" not in "".join(capsys.readouterr())
    assert service.slide("made", "Anna")["summary"]["headline"] == headline
    assert main(["recount", str(results / "made"), "--min-score", "0.8", "--json"]) == 0
    assert "made: Anna signed the count with the earlier settings" in capsys.readouterr().err
    again = service.slide("made", "Anna")["summary"]
    assert again["state"] == "finished"
    assert again["headline"].startswith("Signed with other settings than the result has now: ")
    take_back(service)
    assert "Signed with" not in sign(service)["summary"]["headline"]


@pytest.mark.parametrize("decided", [None, "mitosis", "look-alike"])
def test_a_cell_that_would_count_twice_is_not_signed(results, serve, decided):
    service = serve(results)
    result = service.result("made")
    mark = ids(service)[0]
    x, y = result.candidates.xy[result.candidates.index[mark]].tolist()
    own = event("add", mark="own-1", x_px=x + 1.5, y_px=y, label="atypical")
    events = [own] if decided is None else [own, event("decide", mark=mark, label=decided)]
    service.post("made", "Anna", batch(service, *events))
    if decided == "look-alike":
        assert sign(service)["state"]["finished"]
        return
    with pytest.raises(
        DataError, match=r"two marks 1\.9 um apart, at .* one cell would count twice"
    ):
        sign(service)
    assert not service.state(result, "Anna").finished and not (results / "reviews").exists()
    service.post("made", "Anna", batch(service, event("remove", mark="own-1")))
    assert sign(service)["state"]["finished"]


def test_the_signed_count_is_what_recount_makes_of_the_signed_marks(results, serve):
    service = serve(results)
    rng = np.random.default_rng(3)
    labels = rng.choice(["mitosis", "atypical", "look-alike"], 40).tolist()
    events = [event("decide", mark=m, label=x) for m, x in zip(ids(service), labels, strict=False)]
    events.append(
        event("add", mark=f"own-{event('x')['id']}", x_px=1500.0, y_px=1500.0, label="mitosis")
    )
    events.append(event("move", mark=ids(service)[0], x_px=1400.5, y_px=1300.5))
    events.append(event("decide", mark=ids(service, False)[0], label="mitosis"))
    service.post("made", "Anna", batch(service, *events))
    finish(service, Images(), "made", "Anna", batch(service, event("finish")))
    folder = results / "reviews" / "made" / "Anna"
    signed = json.loads((folder / "reviewed.json").read_text())["reviewed"]
    saved = read_saved(results / "made")
    edited = read_edited(folder / "reviewed.geojson", saved)
    counted = recount(saved, corrections(saved, edited))
    assert counted.reviewed.count == signed["count"]
    assert counted.reviewed.hotspot.count == signed["hotspot"]["count"]
    assert [one.score for one in counted.reviewed.score.systems] == [
        one["score"] for one in signed["score"]["systems"]
    ]
    live = service.slide("made", "Anna")["summary"]
    assert live["count"] == signed["count"]
    assert live["windows"][0]["score"]["count"] == signed["hotspot"]["count"]


def test_a_window_screened_whole_has_the_interval_of_chance_alone(results, serve):
    service = serve(results)
    events = [event("decide", mark=mark, label="mitosis") for mark in ids(service)]
    service.post("made", "Anna", batch(service, *events))
    result = service.result("made")

    def systems():
        content = json.loads(derived_file(service, Images(), "made", "Anna", ".json"))
        return content, content["reviewed"]["score"]["systems"]

    outline = service.area(result, "Anna", "hotspot")[0][0]
    service.post("made", "Anna", batch(service, event("region", mark="region-1", outline=outline)))
    content, (hotspot, _) = systems()
    assert hotspot["interval"]["combined"] == hotspot["interval"]["sampling"]
    assert content["area_reviewed_mm2"] == pytest.approx(2.0, rel=1e-3)


def test_a_result_that_is_counted_again_meanwhile_is_shown_with_its_new_settings(results, serve):
    service = serve(results)

    def hotspot(of: Service) -> dict:
        state = of.state(of.result("made"), "Anna")
        return of.summary_of(of.result("made"), state, "Anna")["windows"][0]

    assert hotspot(service)["score"]["area_mm2"] == 2.0
    recount_result(OutputFolder(results, "made"), {"hotspot_area_mm2": 1.0})
    assert hotspot(service)["score"]["area_mm2"] == 1.0
    assert hotspot(service) == hotspot(serve(results))


def change_summary(results: Path, **changes) -> None:
    path = results / "made" / "summary.json"
    summary = json.loads(path.read_text())
    summary["settings"] |= changes.pop("settings", {})
    path.write_text(json.dumps(summary | changes))


@pytest.mark.parametrize(
    ("changes", "earlier"),
    [
        ({"settings": {"threshold": "0.9"}}, 2),
        ({"settings": {"roi": "5" * 64}}, 2),
        ({"mpp": 1.0}, 2),
        # Another image of the file: what was decided on the first one is of no use there.
        ({"settings": {"page": 2}}, 0),
    ],
    ids=["threshold", "region", "scale", "page"],
)
def test_a_review_is_of_the_marks_that_it_was_made_on(results, serve, changes, earlier):
    service = serve(results)
    mark = "own-" + event("add")["id"]
    service.post(
        "made",
        "Anna",
        batch(
            service,
            event("decide", mark=ids(service)[0], label="look-alike"),
            event("add", mark=mark, x_px=900.0, y_px=900.0, label="mitosis"),
        ),
    )
    change_summary(results, **changes)
    again = serve(results)
    about = again.slide("made", "Anna")
    assert (about["summary"]["state"], about["summary"]["decided"]) == ("new", 0)
    assert about["earlier_marks"] == earlier
    # Other windows and scores leave the marks as they are.
    other = {"settings": {"min_score": 0.7, "hotspot_area_mm2": 1.0}}
    change_summary(results, **other)
    assert serve(results).result("made").key == again.result("made").key


def test_the_tables_of_a_run_show_the_signed_count(results, serve, tmp_path):
    make_result(results, tmp_path / "slides", "second", 20, 1)
    service = serve(results)

    def row() -> dict[str, str]:
        assert main(["report", str(results)]) == 0
        return next(csv.DictReader((results / "cohort.csv").read_text().splitlines()))

    def signed_by(who: str, label: str = "look-alike") -> dict[str, str]:
        decided = event("decide", mark=ids(service)[0], label=label)
        service.post("made", who, batch(service, decided))
        finish(service, Images(), "made", who, batch(service, event("finish")))
        return row()

    assert row()["reviewed_count"] == ""
    one = signed_by("Anna")
    assert (one["reader"], one["count"], one["reviewed_count"]) == ("Anna", "60", "59")
    assert "reviews/made/Anna/reviewed.html" in (results / "cohort.html").read_text()
    # Of several, that which they agreed on.
    one = signed_by("Ben", "mitosis")
    assert (one["reader"], one["reviewed_count"]) == ("", "")
    assert "signed by Anna, Ben, without a consensus" in one["warnings"]
    one = signed_by("consensus", "mitosis")
    assert (one["reader"], one["reviewed_count"], one["warnings"]) == ("consensus", "60", "")
    edited = results / "reviews" / "made" / "Anna" / "reviewed.geojson"
    call = ["recount", str(results / "made"), "--with", str(edited), "--reader", "Anna"]
    assert main(call) == 0
    one = row()
    assert one["reader"] == "consensus" and "besides the signed one" in one["warnings"]
    # Without a signature that one stands.
    shutil.rmtree(results / "reviews")
    one = row()
    assert (one["reader"], one["reviewed_count"], one["warnings"]) == ("Anna", "59", "")


def test_a_blind_readers_mark_on_a_detection_counts_twice_where_the_model_is_in_sight(
    results, serve
):
    blind, service = serve(results, blind=True), serve(results)
    x, y = service.result("made").candidates.detections().xy[0].tolist()
    own = event("add", mark="own-1", x_px=x + 1.5, y_px=y, label="mitosis")
    blind.post("made", "Anna", batch(blind, own))
    with pytest.raises(DataError, match="one cell would count twice"):
        sign(service)
    assert sign(blind)["state"]["finished"]


def detected(results: Path, started: str, **settings) -> None:
    """Make the result one of `detect --mpp` at a time, with these settings."""
    change_summary(results, mpp_source="given", settings=settings)
    path = results / "made" / "run.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"run": {"started": started}}))


def test_a_review_of_an_earlier_version_goes_on_with_its_signature(results, serve, tmp_path):
    detected(results, "2026-01-02T03:00:00+0000")
    service = serve(results)
    result, mark = service.result("made"), ids(service)[0]
    # That version knew a review by the slide and the model alone.
    assert result.key != result.former_key
    decided = event("decide", mark=mark, label="look-alike")
    given = batch(service, decided, event("comment", mark=mark, text="pale"), event("finish"))
    assert service.store.append(result.former_key, "made", "Anna", given.events) == 3
    service.store.append(result.former_key, "other", "Ben", given.events)
    about = service.slide("made", "Anna")
    assert (about["summary"]["state"], about["summary"]["decided"]) == ("finished", 1)
    assert about["earlier_marks"] == 0
    (row,) = worklist_rows(service, "Ben")
    assert row["readers"] == [{"name": "Anna", "state": "finished"}]
    assert list(service.states(result)) == ["Anna"]
    assert len(write_missing(service, Images())[0]) == 1
    assert export_points(service, tmp_path / "mine")["slides"]["made"]["readers"] == ["Anna"]
    export_events(service, tmp_path / "events.jsonl")
    lines = (tmp_path / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["slide"] for line in lines] == ["made"] * 3
    # It goes on under what it is known by now; what is sent again changes nothing.
    take_back(service)
    assert service.post("made", "Anna", batch(service, decided))["stored"] == 0
    undone = event("undo", mark=given.events[1].id)
    again = service.post("made", "Anna", batch(service, undone))
    assert again["state"]["labels"] == {mark: "look-alike"} and not again["state"]["comments"]
    assert sign(service)["summary"]["state"] == "finished"


def test_a_review_goes_on_when_the_file_of_a_slide_has_another_name(results, serve, tmp_path):
    service = serve(results)
    first, second = ids(service)[:2]
    own = event("add", mark="own-1", x_px=1500.0, y_px=1500.0, label="mitosis")
    decided = [event("decide", mark=mark, label="look-alike") for mark in (first, second)]
    comment = event("comment", mark=first, text="pale")
    service.post("made", "Anna", batch(service, *decided, comment, own))
    before = sign(service)["summary"]
    # The ids of marks are of the file's name and the place.
    path = results / "made" / "candidates.csv"
    path.write_text(path.read_text().replace(first, "renamed"))
    again = serve(results)
    about = again.slide("made", "Anna")
    assert about["summary"] == before and about["state"]["finished"]
    assert about["state"]["labels"]["renamed"] == "look-alike"
    assert about["state"]["comments"]["renamed"] == "pale"
    assert first not in about["state"]["labels"] and second in about["state"]["labels"]
    (row,) = worklist_rows(again, "Anna")
    # Two of the 60 detections; the added mark is none of them.
    assert (row["decided"], row["total"], row["reviewed"]["hotspot"]) == (
        2,
        60,
        before["windows"][0]["score"]["count"],
    )
    take_back(again)
    changed = event("decide", mark="renamed", label="mitosis")
    answer = again.post("made", "Anna", batch(again, changed))
    assert answer["summary"]["count"] == before["count"] + 1
    undone = batch(again, event("undo", mark=changed["id"]))
    assert again.post("made", "Anna", undone)["summary"]["count"] == before["count"]


@pytest.mark.parametrize("case", ["detected since", "no time", "impossible time", "other marks"])
def test_what_was_decided_on_other_marks_in_an_earlier_version_is_offered(results, serve, case):
    detected(results, {"detected since": "2026-01-03T03:00:00+0100", "no time": ""}.get(
        case, "2026-01-02T03:00:00+0000"
    ), roi="5" * 64)  # fmt: skip
    service = serve(results)
    result, mark = service.result("made"), ids(service)[0]
    decided = [event("decide", mark=mark, label="look-alike", x_px=9.0, y_px=9.0)]
    if case == "other marks":
        decided.append(event("decide", mark="gone", label="mitosis", x_px=9.0, y_px=9.0))
    if case == "impossible time":
        decided[0]["at"] = "2026-13-02T03:04:05Z"
    given = batch(service, *decided, event("finish"))
    kept = given.events if case != "impossible time" else given.events[:1]
    service.store.append(result.former_key, "made", "Anna", kept)
    about = service.slide("made", "Anna")
    assert about["summary"]["state"] == "new" and about["earlier_marks"] == len(decided)


def test_blind_readers_take_over_nothing_that_was_decided_in_sight_of_a_model(results, serve):
    service = serve(results)
    decided = event("decide", mark=ids(service)[0], label="mitosis")
    service.post("made", "Anna", batch(service, decided))
    change_summary(results, mpp=1.0)
    blind = serve(results, blind=True)
    assert blind.slide("made", "Anna")["earlier_marks"] == 0
    with pytest.raises(NotFoundError, match="no earlier review"):
        link_earlier(blind, "made", "Anna")
    assert serve(results).slide("made", "Anna")["earlier_marks"] == 1


def test_another_slide_of_the_same_name_and_size_is_never_shown(tmp_path):
    results, slides = tmp_path / "results", tmp_path / "slides"
    make_result(results, slides, "made", 20, 1)
    right, wrong = slides / "made.tif", tmp_path / "moved" / "a" / "made.tif"
    wrong.parent.mkdir(parents=True)
    make_result(tmp_path / "other", tmp_path / "elsewhere", "made", 20, 2)
    shutil.move(tmp_path / "elsewhere" / "made.tif", wrong)
    result = Worklist(results, tmp_path / "moved").all()["made"]
    with pytest.raises(InputError, match=r"a/made.tif is not the slide of made: its content"):
        Images().crop(result, 1000, 1000, 64)
    with pytest.raises(InputError, match="its content is another"):
        result.check_image(wrong)
    found = tmp_path / "moved" / "b" / "made.tif"
    found.parent.mkdir()
    shutil.move(right, found)
    result = Worklist(results, tmp_path / "moved").all()["made"]
    assert result.image == found
    assert Images().crop(result, 1000, 1000, 64)


def test_what_was_decided_is_not_exported_with_another_slide(results, serve, tmp_path):
    service = serve(results)
    decided = event("decide", mark=ids(service)[0], label="mitosis")
    service.post("made", "Anna", batch(service, decided))
    make_result(tmp_path / "other", tmp_path / "slides", "made", 20, 2)
    with pytest.raises(InputError, match=r"slides/made.tif is not the slide of made"):
        export_points(service, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_new_models_marks_are_linked_one_to_one_within_7_5_um(tmp_path, serve):
    points = np.array([[1200.0, 1200.0], [1500.0, 1500.0], [1800.0, 1800.0]])
    results, slides = tmp_path / "results", tmp_path / "slides"
    make_result(results, slides, points=points, faint=0)
    service = serve(results)
    marks = ids(service)
    labels = ["mitosis", "mitosis", "look-alike"]
    service.post(
        "made",
        "Anna",
        batch(
            service,
            *(event("decide", mark=m, label=x) for m, x in zip(marks, labels, strict=True)),
            *(event("comment", mark=m, text=f"no {k}") for k, m in enumerate(marks[:2])),
            event("comment", text="thick"),
        ),
    )
    # The new model has the first 6 um further, lacks the second, has the third at its place.
    slide = json.loads((results / "made" / "summary.json").read_text())["input"]
    shutil.rmtree(results / "made")
    moved = np.array([[1200 + 4.0, 1200.0], [1800.0, 1800.0], [2000.0, 2000.0]])
    make_result(results, slides, points=moved, faint=0)
    summary = json.loads((results / "made" / "summary.json").read_text())
    summary["input"], summary["model"]["sha256"] = slide, "another"
    (results / "made" / "summary.json").write_text(json.dumps(summary))
    service = serve(results)
    assert service.slide("made", "Anna")["earlier_marks"] == 3
    answer = link_earlier(service, "made", "Anna")
    assert (answer["linked"], answer["added"], answer["left"]) == (2, 1, 0)
    new = ids(service)
    assert answer["state"]["labels"][new[0]] == "mitosis"
    assert answer["state"]["labels"][new[1]] == "look-alike"
    assert list(answer["state"]["added"].values()) == [(1500.0, 1500.0)]
    (own,) = answer["state"]["added"]
    assert answer["state"]["comments"] == {"": "thick", new[0]: "no 0", own: "no 1"}
    assert link_earlier(service, "made", "Anna")["summary"]["decided"] == 3


def test_training_mode_gives_the_marks_nearest_the_threshold_over_all_slides(tmp_path, serve):
    results, slides = tmp_path / "results", tmp_path / "slides"
    make_result(results, slides, "one", 20, 1)
    make_result(results, slides, "two", 20, 2)
    service = serve(results, mode="training")
    queue = training_queue(service, "Anna")["marks"]
    assert {mark["slide"] for mark in queue} == {"one", "two"}
    distances = []
    for mark in queue:
        result = service.result(mark["slide"])
        place = result.candidates.index[mark["id"]]
        distances.append(abs(result.candidates.score[place] - result.threshold))
    assert distances == sorted(distances)


def test_a_folder_without_results_is_refused_and_a_damaged_one_named(tmp_path, results):
    with pytest.raises(InputError, match="no result of detect"):
        Worklist(tmp_path / "slides")
    (results / "bad").mkdir()
    (results / "bad" / "summary.json").write_text("{}")
    worklist = Worklist(results)
    assert set(worklist.all()) == {"made"} and "bad" in worklist.problems


def test_a_crop_shows_the_mark_in_its_middle(results, serve):
    service = serve(results)
    mark = ids(service)[0]
    result, x, y = service.position("made", "Anna", mark)
    crop = picture_of(Images().crop(result, x, y, 64))
    middle = crop.shape[0] // 2
    assert crop.shape[0] == round(64 / MPP)
    assert crop[middle - 2 : middle + 2, middle - 2 : middle + 2].mean() < 110


@pytest.fixture
def insisted(tmp_path) -> Path:
    """Results of `detect --override-mpp` and of `detect --page`; returns their folder."""
    field = np.full((700, 900, 3), (222, 178, 200), np.uint8)
    field[391:410, 591:610] = (30, 20, 40)
    twice_as_coarse = (10_000 / 0.5, 10_000 / 0.5)
    tifffile.imwrite(
        tmp_path / "scale.tif", field, resolution=twice_as_coarse, resolutionunit="CENTIMETER"
    )
    with tifffile.TiffWriter(tmp_path / "pages.tif") as pages:
        pages.write(np.full((800, 1000, 3), 240, np.uint8), photometric="rgb")
        pages.write(field, photometric="rgb")
    model = write_toy(tmp_path / "toy.segmitos")
    given = ["-m", str(model), "-o", str(tmp_path / "results"), "--mpp", "0.25"]
    given += ["--threads", "1", "--no-tissue-mask", "--quiet"]
    assert main(["detect", str(tmp_path / "scale.tif"), *given, "--override-mpp"]) == 0
    assert main(["detect", str(tmp_path / "pages.tif"), *given, "--page", "2"]) == 0
    return tmp_path / "results"


@pytest.mark.parametrize("name", ["scale", "pages"])
def test_pictures_are_of_the_page_and_at_the_scale_that_detection_read(insisted, name):
    result = Worklist(insisted).all()[name]
    apart = np.hypot(*(result.candidates.xy - np.array([600, 400])).T)
    x, y = result.candidates.xy[int(apart.argmin())]
    assert apart.min() < 3
    images = Images()
    dark = np.argwhere(picture_of(images.crop(result, x, y, 64)).mean(axis=2) < 110)
    assert np.allclose(dark.mean(axis=0), 127.5, atol=2) and len(dark) == pytest.approx(361, 0.1)
    coarse = picture_of(images.tile(result, 1, 0, 0))
    assert coarse.shape[:2] == (350, 450)
    dark = np.argwhere(coarse.mean(axis=2) < 110)
    assert np.allclose(dark.mean(axis=0), (200, 300), atol=1.5)


def test_one_page_of_several_is_no_data_set(insisted, serve, tmp_path):
    service = serve(insisted)
    result = service.result("pages")
    decided = event("decide", mark=result.candidates.ids[0], label="mitosis")
    service.post("pages", "Anna", batch(service, decided, name="pages"))
    with pytest.raises(InputError, match=r"page 2 was reviewed .* save the page"):
        export_points(service, tmp_path / "out")
    assert not (tmp_path / "out").exists()
