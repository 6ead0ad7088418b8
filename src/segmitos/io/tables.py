"""Tables as people and programs save them: one reader for all of them.

Quotes, semicolons and tabs for commas, decimal commas, Excel's `sep=;`.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segmitos.errors import DataError
from segmitos.io.text import parse_decimal, read_text

# "1,506" where decimal commas are not sure: a thousand, or one and a half?
_AMBIGUOUS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}", re.ASCII)


def may_be_thousands(text: str) -> bool:
    """Tell whether a comma in a number may stand for thousands as well as for decimals."""
    return _AMBIGUOUS.fullmatch(text.strip()) is not None


def parse_number(text: str, where: str, delimiter: str = ";") -> float:
    """Parse a finite number, with decimal point or decimal comma.

    Args:
        text: the cell.
        where: file, line and column for the message, e.g. `a.csv, line 3: x_px`.
        delimiter: of the table; with commas between columns a quoted "1,506" is refused, since it
            may be meant as a thousand.

    Raises:
        DataError: naming the value.
    """
    if delimiter == "," and may_be_thousands(text):
        raise DataError(
            f"{where} {text.strip()[:60]!r}: a decimal comma, or one for thousands? write numbers "
            "with a decimal point, without a sign for thousands"
        )
    value = parse_decimal(text)
    if value is None:
        raise DataError(f"{where} {text.strip()[:60]!r} is not a number")
    return value


@dataclass(frozen=True)
class Table:
    """A table of text cells without its blank rows.

    Attributes:
        path: of the file.
        rows: line number in the file (from 1) and stripped cells of each row.
        delimiter: what stands between columns.
    """

    path: Path
    rows: tuple[tuple[int, tuple[str, ...]], ...]
    delimiter: str

    @property
    def header(self) -> tuple[str, ...]:
        """The cells of the first row; empty without rows."""
        return self.rows[0][1] if self.rows else ()

    def where(self, line: int, column: str = "") -> str:
        """Return file and line for a message, and the column where one is given."""
        return f"{self.path}, line {line}" + (f": {column}" if column else "")

    def number(self, text: str, line: int, column: str, required: bool = True) -> float:
        """Parse a cell as a finite number; empty is nan where not required. Raises DataError."""
        if not required and not text.strip():
            return math.nan
        return parse_number(text, self.where(line, column), self.delimiter)

    def named(
        self, problems: list[str] | None = None, fill: bool = False
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield line number and cells by the (lower-case) column names of the first row.

        Args:
            problems: where given, rows of another length are added to it and passed over.
            fill: rows that are too short end in empty cells, as some programs save them.

        Raises:
            DataError: for two columns of one name, or a row longer or shorter than the first.
        """
        header = [name.lower() for name in self.header]
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise DataError(f"{self.path}: two columns are named {twice!r}")
        for line, cells in self.rows[1:]:
            missing = len(header) - len(cells)
            if missing and not (fill and missing > 0):
                message = f"{self.where(line)}: {len(cells)} values for {len(header)} columns"
                if problems is None:
                    raise DataError(message)
                problems.append(message)
                continue
            yield line, dict(zip(header, [*cells, *[""] * missing], strict=True))

    def require(self, columns: Sequence[str]) -> None:
        """Raise DataError where the first row lacks one of these columns, naming it."""
        header = [name.lower() for name in self.header]
        missing = [name for name in columns if name.lower() not in header]
        if missing:
            has = ", ".join(self.header)[:120] or "no header"
            raise DataError(f"{self.path} lacks the column {missing[0]!r}; it has {has}")


def read_table(path: Path, any_bytes: bool = False) -> Table:
    """Read a file of values: CSV with commas, semicolons or tabs.

    Empty cells that a spreadsheet left behind the last column are no part of it.

    Args:
        path: of the file.
        any_bytes: keep bytes that are no UTF-8 as the system keeps them in the names of files.

    Raises:
        DataError: if the file cannot be read, is not text, or a quote is never closed.
    """
    text = read_text(path, any_bytes)
    first, _, rest = text.partition("\n")
    skipped = 0
    if re.fullmatch(r'"?sep=[,;\t|]"?', first.strip("\r\n ")):
        delimiter, text, skipped = first.strip('" ')[-1], rest, 1
    else:
        delimiter = _delimiter(text)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter, strict=True)
    rows = []
    start, width = 1 + skipped, 0
    try:
        for cells in reader:
            stripped = tuple(cell.strip() for cell in cells)
            if any(stripped):
                width = width or len(_without_empty_end(stripped))
                rows.append((start, stripped[:width] + _without_empty_end(stripped[width:])))
            start = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise DataError(f"{path}, line {start}: not a CSV file ({error})") from error
    return Table(path, tuple(rows), delimiter)


def _without_empty_end(cells: tuple[str, ...]) -> tuple[str, ...]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def _delimiter(text: str) -> str:
    """Tell the delimiter from the first line with text: a tab or semicolon outweighs commas."""
    line = next((line for line in text.split("\n") if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", line)
    return next((sign for sign in "\t;" if sign in bare), ",")


def table_text(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table as CSV text; None is an empty cell."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([columns, *rows])
    return buffer.getvalue()


def text_cell(value: Any) -> Any:
    """Return a cell that no spreadsheet takes for a formula."""
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else value
