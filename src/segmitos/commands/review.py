"""`segmitos review`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segmitos.commands.progress import in_words
from segmitos.errors import InputError, OutputError, UsageError
from segmitos.options import FilePath, overwrite_option

if TYPE_CHECKING:
    from segmitos.review.access import Reader
    from segmitos.review.service import Service


results_argument = click.argument("results", type=FilePath, help="An output folder of detect.")
slides_option = click.option(
    "--slides", type=FilePath, help="Where the slides are now, if they were moved."
)
database_option = click.option(
    "--database",
    help="Where reviews are kept, postgresql+psycopg://USER@HOST/NAME; "
    "default: reviews.sqlite in RESULTS.",
)
readers_option = click.option("--readers", "names", multiple=True, help="Only these readers.")

_SHOWN = (("F", "f"), ("kappa", "kappa"), ("score kappa", "score_kappa"), ("ICC", "count_icc"))


class _ResultsOrVerb(click.Group):
    """`segmitos review RESULTS` serves; `segmitos review agreement|export RESULTS` do not."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help"):
            args = ["serve", *args]
        return super().parse_args(context, args)


@click.group(
    cls=_ResultsOrVerb,
    no_args_is_help=True,
    options_metavar="",
    subcommand_metavar="RESULTS [OPTIONS] | COMMAND [ARGS]...",
)
def review() -> None:
    """Correct and sign counts in a browser, compare readers, export what was decided.

    The options of a review are those of 'segmitos review serve --help'.

    Example: segmitos review results --reader Anna
    """


@review.command()
@results_argument
@click.option(
    "--reader",
    "names",
    multiple=True,
    help="Who reads; several each get an address of their own. Default: the user's name.",
)
@slides_option
@click.option(
    "--mode",
    type=click.Choice(["report", "training"]),
    default="report",
    show_default=True,
    help="report: a slide's hotspot first; training: what teaches most first, over all slides.",
)
@click.option("--blind", is_flag=True, help="Show readers nothing of the model or of each other.")
@database_option
@click.option(
    "--readers",
    "readers_file",
    type=FilePath,
    help="Table name,token,role of readers; made for the --reader names where it is not there.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0: a free one. Default: the same for these results each time, where "
    "it is free.",
)
@click.option("--address", help="Address that a reverse proxy shows, https://HOST.")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
def serve(
    results: Path,
    names: Sequence[str],
    slides: Path | None,
    mode: str,
    blind: bool,
    database: str | None,
    readers_file: Path | None,
    host: str,
    port: int | None,
    address: str | None,
    browser: bool,
) -> None:
    """Serve the review of a folder of results; the verb `serve` may be left out.

    Example: segmitos review serve results --reader Anna
    """
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
    written, problems = write_missing(service, Images())
    for folder in written:
        print(f"written again: {folder}")
    for problem in problems:
        print(f"not written: {problem}")

    def on_ready(addresses: list[tuple[Reader, str]]) -> None:
        print(f"{in_words(len(worklist.all()), 'slide')} of {results}; stop with Ctrl-C")
        for reader, url in addresses:
            print(f"{reader.name}: {url}", flush=True)
        if browser and len(addresses) == 1:
            import webbrowser

            webbrowser.open(addresses[0][1])

    try:
        serve(service, readers, host, port, address, on_ready)
    finally:
        _show_in_tables(worklist.home)


@review.command()
@results_argument
@click.option("-o", "--out", type=FilePath, required=True, help="Folder for tables and the page.")
@readers_option
@click.option("--model/--no-model", default=True, help="Count the model as one more reader.")
@database_option
@click.option(
    "--draws",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Draws of the bootstrap over slides.",
)
def agreement(
    results: Path, names: Sequence[str], out: Path, model: bool, database: str | None, draws: int
) -> None:
    """Compare readers who finished the same slides: F, kappa, alpha, ICC, Bland-Altman.

    Example: segmitos review agreement results -o agreement
    """
    require_packages("sklearn", "krippendorff")
    from segmitos.io.files import write_files
    from segmitos.io.outputs import check_folder
    from segmitos.review.agreement import agreement, agreement_files
    from segmitos.review.compare import all_readings, check_readers

    check_folder(out, ("agreement.csv", "agreement.html"), "agreement.json")
    service = _service(results, None, database)
    check_readers(service, names)
    slides = all_readings(service, names or None, model)
    if not slides:
        raise InputError(f"{results}: no slide was finished yet (Finish, Sign the count)")
    content = agreement(slides, draws)
    write_files(out, agreement_files(content))
    for pair in content["pairs"]:
        figures = [_figure(name, pair[key]) for name, key in _SHOWN]
        compared = in_words(pair["slides"], "slide")
        print(f"{pair['first']}, {pair['second']}: {compared}, {', '.join(figures)}")
    print(out / "agreement.html")


def _figure(name: str, figure: dict[str, float | None]) -> str:
    value, low, high = figure["value"], figure["low"], figure["high"]
    spread = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return f"{name} -" if value is None else f"{name} {value:.2f}{spread}"


@review.command()
@results_argument
@click.option(
    "-o", "--out", type=FilePath, required=True, help="Folder to write; with --events a file."
)
@readers_option
@click.option(
    "--rule",
    type=click.Choice(["majority", "all", "adjudicated"]),
    default="majority",
    show_default=True,
    help="When several readers make a mitosis; what lies between is unsure.",
)
@slides_option
@click.option("--events", is_flag=True, help="Write what happened, as JSON lines.")
@overwrite_option
@database_option
def export(
    results: Path,
    names: Sequence[str],
    out: Path,
    rule: str,
    slides: Path | None,
    events: bool,
    database: str | None,
    overwrite: bool,
) -> None:
    """Write decided marks as a data set to train on: mitoses, look-alikes, unsure, regions.

    Example: segmitos review export results -o mine
    """
    require_packages()
    from segmitos.io.outputs import check_file
    from segmitos.review.compare import check_readers
    from segmitos.review.export import export_events, export_points

    service = _service(results, slides, database)
    check_readers(service, names)
    if events:
        check_file(out, overwrite)
        print(f"{in_words(export_events(service, out, names or None), 'event')}: {out}")
        return
    content = export_points(service, out, names or None, rule)
    print(
        f"{in_words(len(content['slides']), 'slide')}, {in_words(content['mitoses'], 'mitosis')}, "
        f"{in_words(content['look_alikes'], 'look-alike')}, {content['unsure']} unsure: "
        f"points:{out}"
    )
    if any(slide["assisted"] for slide in content["slides"].values()):
        print("reviewed with the model's marks in sight: its score on them would be too high")


def _show_in_tables(home: Path) -> None:
    """Put what was signed into the tables of a run."""
    from segmitos.cohort.names import COHORT
    from segmitos.cohort.tables import write_tables

    if (home / COHORT).is_file():
        try:
            write_tables(home)
        except OutputError as error:
            print(f"not written: {error}")


def _service(results: Path, slides: Path | None, database: str | None) -> Service:
    """Open the reviews of a folder that is there already."""
    from segmitos.report.signed import DECISIONS
    from segmitos.review.results import Worklist
    from segmitos.review.service import Service
    from segmitos.review.store import Store

    worklist = Worklist(results, slides)
    if database is None and not (worklist.home / DECISIONS).is_file():
        raise InputError(f"{results} was not reviewed yet (no {DECISIONS}); run: segmitos review")
    return Service(worklist, Store(database) if database else Store.in_folder(worklist.home))


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
    import getpass

    try:
        name = getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "reader"
    plain = "".join(sign if sign.isalnum() or sign in " -" else "-" for sign in name)
    return plain.strip("- ")[:60]


def require_packages(*more: str) -> None:
    """Refuse where the packages of the app are missing. Raises UsageError."""
    from importlib.util import find_spec

    needed = ("starlette", "uvicorn", "sqlalchemy", *more)
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise UsageError(f"{missing[0]} is missing: in the source folder, pip install '.[review]'")
