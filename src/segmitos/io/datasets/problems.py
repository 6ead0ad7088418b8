"""What is wrong in a data set: raised at once, or collected so that all of it can be listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from segmitos.errors import InputError

Problems = list[str]


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
