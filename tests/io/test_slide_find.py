"""Files, folders, globs and lists, in a known order."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from segmitos.errors import InputError
from segmitos.io.files import image_bytes
from segmitos.io.slide import InputEntry, Slide, find_images, find_inputs
from tests.factories import slides


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    for name in (
        "b.png",
        "a.JPG",
        "notes.csv",
        ".hidden.png",
        "deep/er/c.tif",
        ".cache/d.png",
        "m.mrxs",
        "m/Data0001.png",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")
    (tmp_path / "x.svs").mkdir()
    return tmp_path


def names(images: list[Path], folder: Path) -> list[str]:
    return [image.relative_to(folder).as_posix() for image in images]


def test_folder(cohort: Path) -> None:
    expected = ["a.JPG", "b.png", "deep/er/c.tif", "m.mrxs", "x.svs"]
    assert names(find_images([cohort]), cohort) == expected


def test_order_given_and_each_once(cohort: Path) -> None:
    paths = [cohort / "b.png", cohort, cohort / "b.png"]
    assert names(find_images(paths), cohort)[:2] == ["b.png", "a.JPG"]
    assert len(find_images(paths)) == 5


def test_any_file_that_is_named_is_taken(cohort: Path) -> None:
    (cohort / "notes.xyz").touch()
    assert find_images([cohort / "notes.xyz"]) == [cohort / "notes.xyz"]


def test_globs(cohort: Path) -> None:
    assert names(find_images([cohort / "*.png"]), cohort) == ["b.png"]
    assert names(find_images([cohort / "**" / "*.tif"]), cohort) == ["deep/er/c.tif"]
    with pytest.raises(InputError, match="no image matches"):
        find_images([cohort / "*.ndpi"])


def test_name_with_brackets_is_no_glob(tmp_path: Path) -> None:
    (tmp_path / "a[1].png").touch()
    assert find_images([tmp_path / "a[1].png"]) == [tmp_path / "a[1].png"]


def test_list_file(cohort: Path) -> None:
    (cohort / "list.txt").write_text("# two\n\nb.png\ndeep/er/c.tif\ngone.svs\n")
    found = find_images([cohort / "list.txt"])
    assert names(found, cohort) == ["b.png", "deep/er/c.tif", "gone.svs"]
    (cohort / "empty.txt").write_text("\n# nothing\n")
    with pytest.raises(InputError, match=r"empty\.txt: this list names no image"):
        find_images([cohort / "empty.txt"])
    (cohort / "binary.txt").write_bytes(b"\x89\x00\x00\x9d")
    with pytest.raises(InputError, match=r"binary\.txt: not a text file"):
        find_images([cohort / "binary.txt"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.png: no such file"):
        find_images([tmp_path / "missing.png"])
    with pytest.raises(InputError, match="no images in this folder"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="no images given"):
        find_images([])


def dicom(series: str, kind: str = "VOLUME", side: int = 10, nested: str = "") -> bytes:
    """The header of a DICOM file (explicit little endian), as slide scanners write it."""

    def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        tag = group.to_bytes(2, "little") + number.to_bytes(2, "little") + vr
        return tag + len(value).to_bytes(2, "little") + value

    inner = element(0x20, 0xE, b"UI", nested.encode())
    item = b"\xfe\xff\x00\xe0" + len(inner).to_bytes(4, "little") + inner
    sequence = b"\x08\x00\x15\x11SQ\0\0" + len(item).to_bytes(4, "little") + item
    return (
        bytes(128)
        + b"DICM"
        + element(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
        + element(8, 8, b"CS", f"ORIGINAL\\PRIMARY\\{kind}\\NONE".encode())
        + (sequence if nested else b"")
        + element(0x20, 0xE, b"UI", series.encode())
        + element(0x48, 6, b"UL", side.to_bytes(4, "little"))
        + element(0x48, 7, b"UL", side.to_bytes(4, "little"))
    )


@pytest.fixture
def dicom_slide(tmp_path: Path) -> Path:
    """A slide of two levels, a label and an overview; the label's file is the largest."""
    folder = tmp_path / "case 7"
    folder.mkdir()
    (folder / "a_label.dcm").write_bytes(dicom("1.2.7", "LABEL", 900) + bytes(9000))
    (folder / "b_level1.dcm").write_bytes(dicom("1.2.7", side=256, nested="1.2.9"))
    (folder / "c_level0").write_bytes(dicom("1.2.7", side=512, nested="1.2.8"))
    (folder / "d.dcm").write_bytes(dicom("1.2.7", "OVERVIEW", 100))
    return folder


@pytest.mark.parametrize("way", ["folder", "above", "glob", "files", "list", "one", "table"])
def test_a_dicom_slide_is_one_however_it_is_named(dicom_slide: Path, way: str) -> None:
    files = sorted(dicom_slide.iterdir())
    above = dicom_slide.parent
    (above / "list.txt").write_text("\n".join(str(file) for file in files))
    (above / "table.csv").write_text("path\ncase 7/d.dcm\ncase 7/a_label.dcm\n")
    given: dict[str, list[Path]] = {
        "folder": [dicom_slide],
        "above": [above],
        "glob": [dicom_slide / "*"],
        "files": files,
        "list": [above / "list.txt"],
        "one": [dicom_slide / "a_label.dcm"],
        "table": [above / "table.csv"],
    }
    assert find_inputs(given[way]) == [InputEntry(dicom_slide / "c_level0", slide_name="case 7")]


def test_a_table_names_a_dicom_slide_that_a_folder_holds_too(dicom_slide: Path) -> None:
    table = dicom_slide.parent / "table.csv"
    table.write_text("path,name\ncase 7/d.dcm,X\n")
    for given in ([dicom_slide, table], [table, dicom_slide]):
        (entry,) = find_inputs(given)
        assert (entry.name, entry.slide_name) == ("X", "case 7")


def test_two_dicom_slides_in_a_folder_are_named_after_their_series(dicom_slide: Path) -> None:
    (dicom_slide / "e.dcm").write_bytes(dicom("1.2.8"))
    (dicom_slide / "broken.dcm").write_bytes(b"other")
    assert [entry.slide_name for entry in find_inputs([dicom_slide])] == ["1.2.7", None, "1.2.8"]


def test_real_dicom_slide(cases_dir: Path) -> None:
    for given in ("dicom_glob", "dicom_glob/*.dcm", "dicom_glob/label.dcm"):
        (entry,) = find_inputs([cases_dir / given])
        assert (entry.path.name, entry.slide_name) == ("level-0.dcm", "dicom_glob")
        with Slide.open(entry.path) as slide:
            assert (slide.width, slide.height, slide.mpp) == (512, 512, 0.2273)


def save_result(folder: Path, name: str = "run.json") -> None:
    folder.mkdir(parents=True)
    about = {"input": "/x.png", "started": "", "device": "cpu", "model": {}, "settings": {}}
    (folder / name).write_text(json.dumps(about))
    (folder / "overview.jpg").touch()


@pytest.mark.parametrize("mark", ["run.json", "summary.json"])
def test_results_are_no_inputs(tmp_path: Path, mark: str) -> None:
    (tmp_path / "a.png").touch()
    save_result(tmp_path / "segmitos-out" / "a", mark)
    save_result(tmp_path / "b", mark)
    only = [tmp_path / "a.png"]
    assert find_images([tmp_path]) == only
    assert find_images([tmp_path / "**" / "*.[jp]*g"]) == only
    assert find_images(sorted(tmp_path.iterdir())) == only
    assert find_images([tmp_path / "a.png", tmp_path / "b" / "overview.jpg"]) == only
    (tmp_path / "list.txt").write_text("b/overview.jpg\nb\na.png\n")
    assert find_images([tmp_path / "list.txt"]) == only
    for alone in (tmp_path / "b", tmp_path / "b" / "overview.jpg"):
        with pytest.raises(InputError, match="what segmitos wrote"):
            find_images([alone])


def test_files_of_other_programs_make_no_result(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"input": 1}')
    (tmp_path / "summary.json").write_text("[" * 100_000)
    (tmp_path / "a.png").touch()
    assert find_images([tmp_path]) == [tmp_path / "a.png"]


def test_the_output_folder_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "out/b.png", "in/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [entry.path for entry in find_inputs([tmp_path], tmp_path / "out")]
    assert names(found, tmp_path) == ["a.png", "in/c.png"]
    # Where results go to the folder of the images itself, the images are still images.
    assert len(find_inputs([tmp_path], tmp_path)) == 3


def test_pictures_that_were_drawn_are_no_inputs(tmp_path: Path) -> None:
    picture = slides.picture(20, 10)
    slides.save_png(tmp_path / "mine.png", picture)
    for kind in ("png", "jpg"):
        (tmp_path / f"sheet.{kind}").write_bytes(image_bytes(picture, kind, drawn=True))
        (tmp_path / f"converted.{kind}").write_bytes(image_bytes(picture, kind))
    assert names(find_images([tmp_path]), tmp_path) == [
        "converted.jpg",
        "converted.png",
        "mine.png",
    ]


def test_links_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "again.png").symlink_to("1.png")
    (tmp_path / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "gone.png").symlink_to("nothing")
    (tmp_path / "a" / "loop.png").symlink_to("loop.png")
    (tmp_path / "b").symlink_to("a", target_is_directory=True)
    expected = ["a/1.png", "a/gone.png", "a/loop.png"]
    assert names(find_images([tmp_path]), tmp_path) == expected
    assert len(find_images([tmp_path, tmp_path / "b", tmp_path / "b" / "again.png"])) == 3


def test_only_regular_files_are_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.png")
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.tif")
        slides.save_png(tmp_path / "a.png", slides.picture(10, 10))
        assert find_images([tmp_path]) == [tmp_path / "a.png"]
        assert find_images(["*.*"]) == [Path("a.png")]
        (tmp_path / "list.txt").write_text("pipe.png\na.png\n")
        in_list = find_inputs(["list.txt"])
        assert [entry.problem[:20] for entry in in_list] == ["pipe.png: a named pi", ""]
        for name, kind in (("pipe.png", "pipe"), ("socket.tif", "socket"), ("/dev/null", "device")):
            with pytest.raises(InputError, match=f"a (named )?{kind}, not a regular file"):
                find_images([name])
            with pytest.raises(InputError, match=f"a (named )?{kind}, not a regular file"):
                Slide.open(name)


@pytest.mark.skipif(os.name != "posix", reason="names are Unicode there")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path)
    name = b"caf\xe9 [1] \n.PNG"
    try:
        (tmp_path / os.fsdecode(name)).touch()
    except OSError:
        pytest.skip("this file system takes Unicode names alone")
    expected = [Path(os.fsdecode(folder + b"/" + name))]
    assert find_images([tmp_path]) == expected
    assert find_images(expected) == expected
    (tmp_path / os.fsdecode(b"\xe9.png")).touch()
    (tmp_path / "list.txt").write_bytes(b"\xe9.png\n")
    assert find_images([tmp_path / "list.txt"]) == [tmp_path / os.fsdecode(b"\xe9.png")]


def test_a_glob_below_a_folder_with_brackets(tmp_path: Path) -> None:
    (tmp_path / "run[1]").mkdir()
    (tmp_path / "run[1]" / "a.png").touch()
    assert len(find_images([tmp_path / "run[1]" / "*.png"])) == 1


def test_one_path_without_images_does_not_end_the_others(cohort: Path) -> None:
    (cohort / "none").mkdir()
    found = find_inputs([cohort / "gone.png", cohort / "b.png", cohort / "none"])
    assert [bool(entry.problem) for entry in found] == [True, False, True]
    assert "gone.png: no such file" in found[0].problem
    assert "no images in this folder" in found[2].problem
    with pytest.raises(InputError, match="no such file"):
        find_images([cohort / "gone.png", cohort / "b.png"])


@pytest.mark.parametrize("save", ["comma", "semicolon", "tab", "excel", "utf-16"])
def test_table_of_inputs(cohort: Path, save: str) -> None:
    rows = [
        ["Path", "mpp", "roi", "name"],
        ["b.png", "0.25", "rois/b.geojson", "patient 1"],
        ["", "", "", ""],
        ["deep/er/c.tif", "", "", ""],
        ["gone.svs"],
    ]
    sign = {"semicolon": ";", "excel": ";", "tab": "\t"}.get(save, ",")
    text = "".join(sign.join(f'"{cell}"' for cell in row) + "\r\n" for row in rows)
    if save == "excel":
        text = "sep=;\r\n" + text.replace("0.25", "0,25")
    path = cohort / "table.csv"
    path.write_bytes(text.encode("utf-16" if save == "utf-16" else "utf-8-sig"))
    assert find_inputs([path]) == [
        InputEntry(cohort / "b.png", 0.25, cohort / "rois" / "b.geojson", "patient 1"),
        InputEntry(cohort / "deep" / "er" / "c.tif"),
        InputEntry(cohort / "gone.svs"),
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no column .path."),
        ("path\n", "names no image"),
        ("file,mpp\nb.png,1\n", "no column 'path'"),
        ("path,scale\nb.png,1\n", "not understood: scale"),
        ("path,path\nb.png,1\n", "two columns are named 'path'"),
        ("path,mpp\nb.png,x40\n", "line 2: mpp 'x40' is not a number"),
        ("path,mpp\n\nb.png,5000\n", "line 3: mpp: 5000.0 is not a scale"),
        ("path,mpp\n,0.25\n", "line 2: no path"),
        ("path,mpp\nb.png,0.25,,a.png\n", "line 2: 4 values for 2 columns"),
        ("path,name\nb.png,a/b\n", "cannot be the name of a folder"),
        ("path,name\nb.png,x\na.JPG,x\n", "line 3: name 'x' is that of line 2"),
        ("path,name\n.,x\n", "images cannot all be named 'x'"),
        ("path,mpp\nb.png,0.25\n./b.png,0.5\n", "named twice, once with mpp 0.25"),
    ],
)
def test_tables_that_are_not_understood(cohort: Path, text: str, problem: str) -> None:
    (cohort / "table.csv").write_text(text)
    with pytest.raises(InputError, match=problem):
        find_inputs([cohort / "table.csv"])


def test_a_zarr_folder_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.ome.zarr" / "0").mkdir(parents=True)
    with pytest.raises(InputError, match=r"a\.ome\.zarr: Zarr is not read; convert it"):
        find_images([tmp_path / "a.ome.zarr"])


def test_list_saved_by_a_spreadsheet(cohort: Path) -> None:
    (cohort / "list.txt").write_bytes("\"b.png\";\r\n;\r\n'a.JPG'\r\n".encode("utf-8-sig"))
    assert names(find_images([cohort / "list.txt"]), cohort) == ["b.png", "a.JPG"]


def test_a_line_that_is_too_long_for_a_name(cohort: Path) -> None:
    (cohort / "list.txt").write_text("b.png\n" + "x" * 5000 + "\n")
    found = find_images([cohort / "list.txt"])
    assert len(found) == 2
    with pytest.raises(InputError, match="cannot be opened"):
        Slide.open(found[1])


def test_companions_of_slides_are_no_inputs(tmp_path: Path) -> None:
    (tmp_path / "h.vms").write_text(
        "[Virtual Microscope Specimen]\nImageFile=h.jpg\nMapFile = m.JPG\n"
    )
    (tmp_path / "_o_").mkdir()
    for name in ("h.jpg", "m.JPG", "own.jpg", "o.vsi", "_o_/preview.png"):
        (tmp_path / name).touch()
    assert names(find_images([tmp_path]), tmp_path) == ["h.vms", "o.vsi", "own.jpg"]


@pytest.mark.parametrize("name", ["a.vsi", "b.isyntax", "c.companion.ome", "d.KFB"])
def test_containers_that_are_not_read_are_refused_by_name(tmp_path: Path, name: str) -> None:
    slides.save_tiff(tmp_path / name, slides.picture(20, 10))
    assert find_images([tmp_path]) == [tmp_path / name]
    with pytest.raises(InputError, match=f"{name}: .*not"):
        Slide.open(tmp_path / name)
