"""Text files as people's programs save them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmitos.errors import InputError
from segmitos.io.text import parse_decimal, read_table, read_text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_in_the_encodings_that_programs_write(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.txt").write_bytes("µm\r\n".encode(encoding))
    assert read_text(tmp_path / "a.txt") == "µm\r\n"


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


def test_cells_keep_what_quotes_protect(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('A;b\n"x;y";"line\n2"\n\nz\n')
    columns, rows = read_table(tmp_path / "a.csv")
    assert columns == ["a", "b"]
    assert [(row.line, row.cells) for row in rows] == [
        (3, {"a": "x;y", "b": "line\n2"}),
        (5, {"a": "z", "b": ""}),
    ]
