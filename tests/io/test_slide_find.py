"""Files, folders, globs and lists, in a known order."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmitos.errors import InputError
from segmitos.io.slide import find_images


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
    assert find_images([cohort / "notes.csv"]) == [cohort / "notes.csv"]


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
    (cohort / "binary.txt").write_bytes(b"\xff\xfe\x00\x9d")
    with pytest.raises(InputError, match=r"binary\.txt: not a list"):
        find_images([cohort / "binary.txt"])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.png: no such file"):
        find_images([tmp_path / "missing.png"])
    with pytest.raises(InputError, match="no images in this folder"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="no images given"):
        find_images([])


def test_dicom_slide_of_many_files_is_one(tmp_path: Path) -> None:
    def dicom(series: str, size: int) -> bytes:
        uid = series.encode()
        tag = b"\x20\x00\x0e\x00UI" + len(uid).to_bytes(2, "little") + uid
        return bytes(128) + b"DICM" + tag + bytes(size)

    for name, series, size in (("1", "1.2", 10), ("2", "1.2", 500), ("3", "1.3", 5)):
        (tmp_path / f"{name}.dcm").write_bytes(dicom(series, size))
    (tmp_path / "4.dcm").write_bytes(b"other")
    assert names(find_images([tmp_path]), tmp_path) == ["2.dcm", "3.dcm", "4.dcm"]
