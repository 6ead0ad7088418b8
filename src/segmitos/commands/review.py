"""`segmitos review`."""

from __future__ import annotations

import getpass
import webbrowser
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from segmitos.errors import UsageError

if TYPE_CHECKING:
    from segmitos.review.access import Reader


def run_review(
    results: Path,
    names: Sequence[str],
    slides: Path | None,
    mode: str,
    blind: bool,
    database: str | None,
    readers_file: Path | None,
    host: str,
    port: int,
    address: str | None,
    browser: bool,
) -> int:
    """Serve the review app until interrupted."""
    require_packages()
    from segmitos.review.access import is_loopback
    from segmitos.review.finish import write_missing
    from segmitos.review.images import Images
    from segmitos.review.results import Worklist
    from segmitos.review.server import serve
    from segmitos.review.service import Service
    from segmitos.review.store import Store

    if not is_loopback(host) and readers_file is None:
        raise UsageError(
            f"--host {host} can be reached from other machines: name the readers with --readers "
            "FILE, each with a token of their own"
        )
    if slides is not None and not slides.is_dir():
        raise UsageError(f"--slides {slides} is not a folder")
    readers = _readers(names, readers_file)
    worklist = Worklist(results, slides)
    for problem in worklist.problems.values():
        print(f"left out: {problem}")
    store = Store(database) if database else Store.in_folder(worklist.home)
    service = Service(worklist, store, "training" if mode == "training" else "report", blind)
    for folder in write_missing(service, Images()):
        print(f"written again: {folder}")

    def on_ready(addresses: list[tuple[Reader, str]]) -> None:
        print(f"{len(worklist.all())} slides of {results}; stop with Ctrl-C")
        for reader, url in addresses:
            print(f"{reader.name}: {url}", flush=True)
        if browser and len(addresses) == 1:
            webbrowser.open(addresses[0][1])

    serve(service, readers, host, port, address, on_ready)
    return 0


def _readers(names: Sequence[str], file: Path | None) -> list[Reader]:
    """Return who may read: of a table, or new ones with random tokens."""
    from segmitos.review.access import new_reader, read_readers, write_readers

    if file is not None and file.exists():
        known = read_readers(file)
        missing = [name for name in names if name not in {reader.name for reader in known}]
        if missing:
            raise UsageError(f"{file} has no reader {missing[0]!r}; add a line with a token")
        return [reader for reader in known if not names or reader.name in names]
    if len({name.casefold() for name in names}) < len(names):
        raise UsageError("--reader: two readers have one name")
    # Who starts the server for themselves may also decide where earlier readers differed.
    readers = [new_reader(name, len(names) == 1) for name in names or [_own_name()]]
    if file is not None:
        if not names:
            raise UsageError(f"{file} is not there; to make it, name the readers with --reader")
        write_readers(file, readers)
        print(f"written: {file} (change role to adjudicator for who decides where readers differ)")
    return readers


def _own_name() -> str:
    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "reader"
    return "".join(sign if sign.isalnum() or sign in " -" else "-" for sign in name).strip("- ")[
        :60
    ]


def require_packages(*more: str) -> None:
    """Refuse where the packages of the app are missing. Raises UsageError."""
    needed = ("starlette", "uvicorn", "sqlalchemy", *more)
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(f"{missing[0]} is missing: pip install 'segmitos[review]'")
