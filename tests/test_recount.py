"""`segmitos recount`: other settings, corrected marks, one result and a whole run."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from segmitos.cli import main
from segmitos.cohort import finished_results
from segmitos.cohort.identity import RESULT_FORMAT
from tests.factories.toy_models import write_toy

MPP = 0.5
CROWD = np.array([[900 + 90 * i, 900 + 21 * i] for i in range(20)])
FAINT = np.array([[1000, 2000]])
DETECT = ["--mpp", str(MPP), "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of detect on two images of 1.8 x 1.45 mm."""
    folder = tmp_path_factory.mktemp("run")
    model = write_toy(folder / "toy.segmitos")
    for name, cells in (("one", CROWD), ("two", CROWD[:6])):
        image = np.full((2900, 3600, 3), (225, 180, 215), np.uint8)
        for gray, places in ((40, cells), (104, FAINT)):
            for x, y in places:
                image[y - 8 : y + 9, x - 8 : x + 9] = gray
        Image.fromarray(image).save(folder / f"{name}.png")
    images = [str(folder / f"{name}.png") for name in ("one", "two")]
    options = ["-m", str(model), *DETECT]
    assert main(["detect", *images, "-o", str(folder / "results"), *options]) == 0
    return folder


@pytest.fixture
def results(made, tmp_path):
    shutil.copytree(made / "results", tmp_path / "results")
    return tmp_path / "results"


def content_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def corrected(folder, path, edit):
    """Write the marks of a result as a reader left them."""
    collection = json.loads((folder / "detections.geojson").read_text())
    features = collection["features"]
    points = [one for one in features if one["geometry"]["type"] == "Point"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": edit(points)}))
    return path


def without_first_five(points):
    return points[5:]


@pytest.mark.slow
def test_other_settings_change_the_result_in_its_place(results, capsys):
    assert main(["recount", str(results / "one"), "--field-diameter-mm", "0.44"]) == 0
    assert "one: 20 mitotic figures, 20 in the hotspot" in capsys.readouterr().out
    summary = json.loads((results / "one" / "summary.json").read_text())
    assert summary["settings"]["field_diameter_mm"] == 0.44
    assert summary["score"]["systems"][1]["three_from"] == 12
    report = (results / "one" / "report.html").read_text()
    assert "10 fields of 0.44 mm" in report


@pytest.mark.slow
def test_settings_there_and_back_give_the_same_bytes(results):
    before = content_of(results / "one")
    assert main(["recount", str(results / "one"), "--hotspot-shape", "circle"]) == 0
    changed = content_of(results / "one")
    assert changed["report.html"] != before["report.html"]
    assert changed["overview.jpg"] == before["overview.jpg"]
    assert main(["recount", str(results / "one"), "--hotspot-shape", "square"]) == 0
    after = content_of(results / "one")
    del before["run.json"], after["run.json"]
    assert after == before


OTHERS = [
    ["--field-diameter-mm", "0.44"],
    ["--hotspot-shape", "circle", "--hotspot-area-mm2", "1"],
    ["--min-score", "0.97"],
    ["--min-area-um2", "90"],
]


@pytest.mark.slow
@pytest.mark.parametrize("options", OTHERS, ids=lambda options: options[0])
def test_detect_with_other_settings_counts_again_without_the_networks(
    made, results, tmp_path, capsys, monkeypatch, options
):
    image, call = str(made / "one.png"), ["-m", str(made / "toy.segmitos"), *DETECT, *options]
    fresh = tmp_path / "fresh"
    assert main(["detect", image, "-o", str(fresh), *call]) == 0
    before = content_of(results / "one")

    def refuse(*args, **kwargs):
        raise AssertionError("the networks ran again")

    monkeypatch.setattr("segmitos.cohort.job.detect_slide", refuse)
    capsys.readouterr()
    assert main(["detect", image, "-o", str(results), *call]) == 0
    assert "counted again" in capsys.readouterr().out
    after, wanted = content_of(results / "one"), content_of(fresh / "one")
    assert after["summary.json"] != before["summary.json"]
    del after["run.json"], wanted["run.json"]
    assert after == wanted
    # And once more: it is finished.
    assert main(["detect", image, "-o", str(results), *call]) == 0
    assert "counted again" not in capsys.readouterr().out


@pytest.mark.slow
def test_another_threshold_of_the_map_takes_the_networks(made, results, monkeypatch):
    called = []
    monkeypatch.setattr(
        "segmitos.cohort.job.detect_slide", lambda *args, **more: called.append(1) or 1 / 0
    )
    call = ["-m", str(made / "toy.segmitos"), *DETECT, "--threshold", "0.4"]
    assert main(["detect", str(made / "one.png"), "-o", str(results), *call]) == 1
    assert called


def test_a_changed_result_is_not_counted_again(results, capsys):
    (results / "one" / "candidates.csv").write_text("changed")
    assert main(["recount", str(results / "one"), "--field-diameter-mm", "0.44"]) == 1
    error = capsys.readouterr().err
    assert "candidates.csv is damaged or was changed" in error and error.count("\n") == 1


def test_a_changed_result_is_not_reviewed(results, tmp_path, capsys):
    file = corrected(results / "one", tmp_path / "edited.geojson", without_first_five)
    summary = results / "one" / "summary.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"mpp": 0.6}))
    assert main(["recount", str(results / "one"), "--with", str(file)]) == 1
    assert "summary.json is damaged or was changed" in capsys.readouterr().err


@pytest.mark.slow
def test_a_review_states_the_settings_that_it_is_counted_with(results, tmp_path):
    file = corrected(results / "one", tmp_path / "edited.geojson", without_first_five)
    call = ["recount", str(results / "one"), "--with", str(file), "--hotspot-area-mm2", "1"]
    assert main(call) == 0
    review = json.loads((results / "one" / "reviewed.json").read_text())
    assert review["settings"]["hotspot_area_mm2"] == 1
    assert review["reviewed"]["hotspot"]["area_mm2"] == review["model"]["hotspot"]["area_mm2"] == 1
    page = (results / "one" / "reviewed.html").read_text()
    assert "hotspot_area_mm2=1.0" in page and "hotspot_area_mm2=2.0" not in page
    # The result is as it was, and the table says that the two cannot be compared.
    summary = json.loads((results / "one" / "summary.json").read_text())
    assert summary["settings"]["hotspot_area_mm2"] == summary["hotspot"]["area_mm2"] == 2
    one, _ = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert "the review has other settings" in one["warnings"]


def test_a_review_is_replaced_whole_or_not_at_all(results, tmp_path, capsys, monkeypatch):
    file = corrected(results / "one", tmp_path / "edited.geojson", without_first_five)
    call = ["recount", str(results / "one"), "--with", str(file)]
    assert main(call) == 0
    earlier = content_of(results / "one")
    corrected(results / "one", file, lambda points: points[9:])
    written = []

    def full(handle: int) -> None:
        written.append(handle)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(call) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert content_of(results / "one") == earlier


@pytest.mark.slow
def test_crops_are_never_read_from_an_image_that_was_replaced(made, results, tmp_path):
    picture = tmp_path / "one.bmp"
    Image.open(made / "one.png").save(picture)
    call = [str(picture), "-o", str(results), "-m", str(made / "toy.segmitos"), *DETECT]
    assert main(["detect", *call]) == 0
    folder = next(path for path in results.iterdir() if path.name.startswith("one-"))
    # Uncompressed, another image of this size has as many bytes.
    other = np.full((2900, 3600, 3), (10, 200, 10), np.uint8)
    Image.fromarray(other).save(picture)

    def with_one_more(points):
        added = {
            "type": "Feature",
            "geometry": {"type": "Point", "coordinates": [1500, 2500]},
            "properties": {"classification": {"name": "Mitotic figure"}},
        }
        return [*points, added]

    file = corrected(folder, tmp_path / "edited.geojson", with_one_more)
    assert main(["recount", str(folder), "--with", str(file)]) == 0
    page = (folder / "reviewed.html").read_text()
    assert "1 marks are not shown as crops" in page


def test_a_run_shows_the_readers_figures_in_its_tables(results, tmp_path):
    corrected(results / "one", tmp_path / "edited" / "one.geojson", without_first_five)
    call = ["recount", str(results), "--with", str(tmp_path / "edited"), "--reader", "Anna"]
    assert main(call) == 0
    one, two = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert (one["count"], one["reviewed_count"], one["reader"]) == ("20", "15", "Anna")
    assert one["who_score"] and one["reviewed_who_score"] and not two["reviewed_count"]
    page = (results / "cohort.html").read_text()
    assert "Reviewed count" in page and "one/reviewed.html" in page
    # Counting with other settings keeps the review, and says that it is of earlier ones.
    assert main(["recount", str(results / "one"), "--hotspot-area-mm2", "1"]) == 0
    assert (results / "one" / "reviewed.json").exists()
    one, _ = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert "the review has other settings" in one["warnings"] and one["reviewed_count"] == "15"
    shutil.copy(results / "one" / "reviewed.json", results / "two" / "reviewed.json")
    (results / "one" / "reviewed.json").write_text('{"format": "segmitos review"}')
    assert main(["report", str(results)]) == 0
    one, two = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert "another image or model" in one["warnings"] and not one["reviewed_count"]
    assert "another image or model" in two["warnings"] and not two["reviewed_count"]
    (results / "one" / "reviewed.json").write_text("no json")
    assert main(["report", str(results)]) == 0
    one, _ = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert "reviewed.json is damaged" in one["warnings"]


def test_all_results_of_a_run_are_counted_again(results, capsys):
    assert main(["recount", str(results), "--hotspot-area-mm2", "1", "--json"]) == 0
    contents = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in contents] == ["one", "two"]
    assert {one["summary"]["hotspot"]["area_mm2"] for one in contents} == {1.0}


def test_a_corrected_file_gives_the_readers_figures_beside_the_models(results, tmp_path, capsys):
    before = content_of(results / "one")
    file = corrected(results / "one", tmp_path / "edited.geojson", without_first_five)
    call = ["recount", str(results / "one"), "--with", str(file), "--reader", "Anna <b>"]
    assert main([*call, "--tubules", "3", "--nuclei", "3", "--note", "& done"]) == 0
    told = capsys.readouterr().out
    assert "one: 20 -> 15 mitotic figures, hotspot 20 -> 15" in told
    assert "15 confirmed, 5 rejected, 0 added" in told
    after = content_of(results / "one")
    assert {name: after[name] for name in before} == before
    review = json.loads(after["reviewed.json"])
    assert review["model"]["count"] == 20 and review["reviewed"]["count"] == 15
    assert review["reader"] == "Anna <b>" and review["source"] == "edited.geojson"
    assert review["tally"]["rejected"] == 5 and review["settled"] is True
    assert review["grade"] == {"hotspot": 3, "ten fields": 3}
    rows = list(csv.DictReader(after["reviewed.csv"].decode().splitlines()))
    assert [row["label"] for row in rows].count("look-alike") == 5 and len(rows) == 20
    page = after["reviewed.html"].decode()
    assert "Anna &lt;b&gt;" in page and "&amp; done" in page and "<b>" in page
    assert "Model and reader" in page and page.count('<div class="crop ') == 20


def test_a_review_reads_back_as_itself(results, tmp_path):
    def edit(points):
        points[0]["properties"]["classification"]["name"] = "Unsure"
        added = {**points[1], "geometry": {"type": "Point", "coordinates": [1400.0, 2200.0]}}
        del added["id"]
        return [*points[:-2], added]

    file = corrected(results / "one", tmp_path / "a.geojson", edit)
    one = str(results / "one")
    assert main(["recount", one, "--with", str(file), "-o", str(tmp_path / "first")]) == 0
    again = str(tmp_path / "first" / "reviewed.geojson")
    assert main(["recount", one, "--with", again, "-o", str(tmp_path / "second")]) == 0
    first, second = (content_of(tmp_path / name) for name in ("first", "second"))
    assert first["reviewed.csv"] == second["reviewed.csv"]
    assert first["reviewed.geojson"] == second["reviewed.geojson"]
    reviews = [json.loads(files["reviewed.json"]) for files in (first, second)]
    assert reviews[0]["tally"] == reviews[1]["tally"]
    assert reviews[0]["tally"]["unsure"] == reviews[0]["tally"]["added"] == 1


def test_another_readers_review_is_not_replaced(results, tmp_path, capsys):
    file = corrected(results / "one", tmp_path / "a.geojson", without_first_five)
    call = ["recount", str(results / "one"), "--with", str(file), "--reader"]
    assert main([*call, "Anna"]) == 0 and main([*call, "Anna"]) == 0
    capsys.readouterr()
    assert main([*call, "Ben"]) == 1
    error = capsys.readouterr().err
    assert "holds the review of Anna" in error and error.count("\n") == 1
    assert main([*call, "Ben", "--overwrite"]) == 0
    assert json.loads((results / "one" / "reviewed.json").read_text())["reader"] == "Ben"


def test_a_folder_of_corrected_files_serves_a_run(results, tmp_path, capsys):
    corrected(results / "two", tmp_path / "edited" / "two.geojson", lambda points: points[1:])
    assert main(["recount", str(results), "--with", str(tmp_path / "edited")]) == 0
    assert capsys.readouterr().out.startswith("two: 6 -> 5 mitotic figures")
    assert not (results / "one" / "reviewed.json").exists()
    corrected(results / "two", tmp_path / "edited" / "tow.geojson", lambda points: points)
    assert main(["recount", str(results), "--with", str(tmp_path / "edited")]) == 1
    assert "tow.geojson" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        ([], "nothing to change", 2),
        (["--reader", "Anna"], "--reader needs a corrected file", 2),
        (["--tubules", "2"], "needs a corrected file", 2),
        (["--field-diameter-mm", "0.8"], "0.4<=x<=0.69", 2),
        (["--with", "absent.geojson"], "there is no absent.geojson", 1),
    ],
)
def test_wrong_calls_are_one_line(results, capsys, options, words, code):
    assert main(["recount", str(results / "one"), *options]) == code
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_what_cannot_be_read_is_one_line_and_leaves_nothing(results, tmp_path, capsys):
    before = content_of(results / "one")
    for text in ("no json", "[]", '{"type": "FeatureCollection"}', '[{"type": "Feature"}]'):
        bad = tmp_path / "bad.geojson"
        bad.write_text(text)
        code = main(["recount", str(results / "one"), "--with", str(bad)])
        error = capsys.readouterr().err
        # A file without a mark rejects all; it is for a reader to say so.
        assert (code, error.count("\n")) == ((0, 0) if text == "[]" else (1, 1)), text
        for name in set(content_of(results / "one")) - set(before):
            (results / "one" / name).unlink()
    assert main(["recount", str(tmp_path), "--hotspot-area-mm2", "1"]) == 1
    assert "holds no result" in capsys.readouterr().err


def test_names_that_are_no_utf8_are_written_with_escapes(results, tmp_path):
    file = corrected(results / "one", tmp_path / "edited.geojson", without_first_five)
    call = ["recount", str(results / "one"), "--with", str(file)]
    assert main([*call, "--reader", os.fsdecode(b"An\xff"), "--note", os.fsdecode(b"\xfe")]) == 0
    review = json.loads((results / "one" / "reviewed.json").read_text())
    assert (review["reader"], review["note"]) == (r"An\xff", r"\xfe")


def test_a_grade_that_was_asked_for_is_said_or_why_there_is_none(results, tmp_path, capsys):
    file = corrected(results / "one", tmp_path / "edited.geojson", without_first_five)
    call = ["recount", str(results / "one"), "--with", str(file), "-o", str(tmp_path / "out")]
    assert main([*call, "--tubules", "3", "--nuclei", "2"]) == 0
    assert "one: grade 3 (hotspot), grade 2 (ten fields)\n" in capsys.readouterr().out
    given = ["--tubules", "3", "--nuclei", "2", "--hotspot-area-mm2", "9"]
    assert main([*call, *given, "--field-diameter-mm", "0.69"]) == 0
    assert "one: no grade: the image is 1.8 x 1.45 mm: smaller than" in capsys.readouterr().out


def test_tables_that_cannot_be_written_do_not_hide_what_else_failed(results, capsys):
    (results / "one" / "candidates.csv").write_text("changed")
    (results / "cohort.csv").write_text("of somebody else")
    assert main(["report", str(results)]) == 1
    said = capsys.readouterr()
    assert [line.split()[-1] for line in said.out.splitlines()] == [
        str(results / "two" / "report.html")
    ]
    first, second = said.err.splitlines()
    assert "candidates.csv is damaged or was changed" in first
    assert "cohort.csv was not written by SegMitos" in second


def test_a_result_that_cannot_be_counted_stops_no_other_and_the_tables_agree(results, capsys):
    (results / "one" / "candidates.csv").write_text("changed")
    assert main(["recount", str(results), "--min-score", "0.999"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("two: ") and said.err.count("\n") == 1
    assert "candidates.csv is damaged or was changed" in said.err
    summary = json.loads((results / "two" / "summary.json").read_text())
    _, two = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert summary["settings"]["min_score"] == 0.999 and two["count"] == str(summary["count"])


def test_tables_agree_with_the_results_also_after_an_interrupt(results, monkeypatch):
    real = finished_results.recount_result

    def interrupted(folder, changes):
        if folder.name == "two":
            raise KeyboardInterrupt
        return real(folder, changes)

    monkeypatch.setattr(finished_results, "recount_result", interrupted)
    assert main(["recount", str(results), "--min-score", "0.999"]) == 130
    summary = json.loads((results / "one" / "summary.json").read_text())
    one, _ = csv.DictReader((results / "cohort.csv").read_text().splitlines())
    assert one["count"] == str(summary["count"]) != "20"


@pytest.mark.parametrize("call", [["report"], ["recount", "--min-score", "0.5"]])
def test_a_result_of_another_version_is_refused_as_the_tables_do(results, capsys, call):
    run = results / "one" / "run.json"
    run.write_text(run.read_text().replace(f'"format": {RESULT_FORMAT}', '"format": 1'))
    assert main([call[0], str(results), *call[1:]]) == 1
    assert capsys.readouterr().err == (
        f"segmitos: error: {results / 'one'} is of another version of segmitos; run detect again\n"
    )
