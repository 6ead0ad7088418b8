"""What is wrong in an input: raised at once, or collected so that all of it can be said."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from segmitos.errors import DataError, InputError

Problems = list[str]
NAMED = 3
"""Of several problems so many are said in full."""


@contextmanager
def collected(problems: Problems | None) -> Iterator[None]:
    """Add what is wrong with one case or line to `problems`; without such a list raise it.

    Raises:
        InputError: where `problems` is None.
    """
    try:
        yield
    except InputError as error:
        if problems is None:
            raise
        problems.append(str(error))


def refuse_all(path: Path, problems: Sequence[str], noun: str = "line") -> None:
    """Raise what is wrong with a file in one line: the first few problems, and how many there are.

    Args:
        path: of the file, with which each problem may begin.
        problems: a line each; none is no error.
        noun: what each is about, in the singular.

    Raises:
        DataError: where there are any.
    """
    if len(problems) < 2:
        for problem in problems:
            raise DataError(problem)
        return
    first = sorted((problem.removeprefix(f"{path}") for problem in problems), key=_place)[:NAMED]
    shown = "; ".join(problem.lstrip(",: ") for problem in first)
    more = f"; and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    raise DataError(f"{path}: {len(problems)} {noun}s are wrong: {shown}{more}")


def _place(problem: str) -> int:
    """Return the number of the line or feature that a problem begins with."""
    found = re.match(r"\D*(\d{1,9})", problem)
    return int(found[1]) if found else 0
