"""Text files as people's programs save them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmitos.errors import DataError, InputError
from segmitos.io.points.read import read_annotations
from segmitos.io.tables import read_table
from segmitos.io.text import listed, parse_decimal, parse_mpp, read_text, reason_of


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_in_the_encodings_that_programs_write(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("µm\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "µm\n"


def test_what_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    for content in (b"II*\0\x08\0", b"\xff\xfe\x00"):
        (tmp_path / "a.txt").write_bytes(content)
        with pytest.raises(InputError, match=r"a\.txt: not a text file"):
            read_text(tmp_path / "a.txt")
    with pytest.raises(InputError, match="gone: cannot be read"):
        read_text(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.25", 0.25),
        (" 0,2273 ", 0.2273),
        ("-1e-3", -0.001),
        ("2,5e-1", 0.25),
        ("1,234.5", None),
        ("1,2,3", None),
        ("1_0", None),
        ("nan", None),
        ("inf", None),
        ("x40", None),
        ("", None),
    ],
)
def test_numbers_with_a_point_or_a_comma(text: str, value: float | None) -> None:
    assert parse_decimal(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.25", 0.25),
        ("0,25 µm", 0.25),
        ("0.25 \u03bcm/px", 0.25),
        ("0.5um per pixel", 0.5),
        ("0.2273 Microns", 0.2273),
        ("250 nm", None),
        ("mpp=0.25", None),
        ("um/px", None),
    ],
)
def test_a_scale_may_name_its_unit(text: str, value: float | None) -> None:
    assert parse_mpp(text) == value


def test_cells_keep_what_quotes_protect(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('A;b\n"x;y";"line\n2"\n\nz\n')
    assert list(read_table(tmp_path / "a.csv").named(fill=True)) == [
        (2, {"a": "x;y", "b": "line\n2"}),
        (5, {"a": "z", "b": ""}),
    ]


def test_columns_that_a_spreadsheet_left_empty_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a;b;;\n1;2;;\n3;;;\n")
    table = read_table(tmp_path / "a.csv")
    assert list(table.named()) == [(2, {"a": "1", "b": "2"}), (3, {"a": "3", "b": ""})]


def test_the_first_of_many_bad_lines_are_said_and_how_many_there_are(tmp_path: Path) -> None:
    lines = ["x,y,label", "1,2,mitosis", "a,2,mitosis", "1,2", "1,2,cell", "1,nan,mitosis", "x,y,z"]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(DataError) as caught:
        read_annotations(tmp_path / "a.csv")
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'a.csv'}: 5 lines are wrong: line ")
    assert message.count("; line ") == 2
    assert message.endswith("; and 2 more")
    (tmp_path / "a.csv").write_text("\n".join(lines[:3]))
    with pytest.raises(DataError, match=r"a\.csv, line 3: x 'a' is not a number$"):
        read_annotations(tmp_path / "a.csv")


@pytest.mark.parametrize(
    ("count", "text"), [(0, ""), (1, "A"), (3, "A, B, C"), (4, "A, B, C and 1 more")]
)
def test_many_names_are_the_first_and_how_many_more(count: int, text: str) -> None:
    assert listed("ABCD"[:count], 3) == text


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.png"), "No such file or directory"),
        (OSError("image file is truncated\n(3 bytes)"), "image file is truncated (3 bytes)"),
        (OSError(), "OSError"),
    ],
)
def test_a_reason_is_one_line_and_never_none(error: OSError, reason: str) -> None:
    assert reason_of(error) == reason
