"""The verbs of review: the browser app, and what comes out of several readers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from segmitos.options import FilePath


class _ResultsOrVerb(click.Group):
    """`segmitos review RESULTS` serves; `segmitos review agreement|export RESULTS` do not."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        if not any(arg in self.commands for arg in args[:1]) and args[:1] not in (
            ["-h"],
            ["--help"],
            [],
        ):
            args = ["serve", *args]
        return super().parse_args(context, args)


@click.group(
    cls=_ResultsOrVerb,
    no_args_is_help=True,
    subcommand_metavar="RESULTS [OPTIONS] | COMMAND [ARGS]...",
)
def review() -> None:
    """Correct and sign counts in a browser, compare readers, export what was decided.

    Example: segmitos review results --reader Anna
    """


@review.command()
@click.argument("results", type=FilePath, help="An output folder of detect.")
@click.option(
    "--reader",
    "names",
    multiple=True,
    help="Who reads; several each get an address of their own. Default: the user's name.",
)
@click.option("--slides", type=FilePath, help="Where the slides are now, if they were moved.")
@click.option(
    "--mode",
    type=click.Choice(["report", "training"]),
    default="report",
    show_default=True,
    help="report: a slide's hotspot first; training: what teaches most first, over all slides.",
)
@click.option("--blind", is_flag=True, help="Show readers nothing of the model or of each other.")
@click.option(
    "--database",
    help="Where reviews are kept, postgresql+psycopg://USER@HOST/NAME; "
    "default: reviews.sqlite in RESULTS.",
)
@click.option(
    "--readers",
    "readers_file",
    type=FilePath,
    help="Table name,token,role of readers; made for the --reader names where it is not there.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0: a free one."
)
@click.option("--address", help="Address that a reverse proxy shows, https://HOST.")
@click.option("--browser/--no-browser", default=True, help="Open the page in a browser.")
def serve(results: Path, **given: Any) -> int:
    """Serve the review of a folder of results; the verb `serve` may be left out.

    Example: segmitos review serve results --reader Anna
    """
    from segmitos.commands.review import run_review

    return run_review(results, **given)


@review.command()
@click.argument("results", type=FilePath, help="An output folder of detect.")
@click.option("-o", "--out", type=FilePath, required=True, help="Folder for tables and the page.")
@click.option("--readers", "names", multiple=True, help="Only these readers.")
@click.option("--model/--no-model", default=True, help="Count the model as one more reader.")
@click.option("--database", help="Where reviews are kept; default: reviews.sqlite in RESULTS.")
@click.option(
    "--draws",
    type=click.IntRange(0, 100_000),
    default=1000,
    show_default=True,
    help="Draws of the bootstrap over slides.",
)
def agreement(results: Path, **given: Any) -> int:
    """Compare readers who finished the same slides: F, kappa, alpha, ICC, Bland-Altman.

    Example: segmitos review agreement results -o agreement
    """
    from segmitos.commands.review import run_agreement

    return run_agreement(results, **given)


@review.command()
@click.argument("results", type=FilePath, help="An output folder of detect.")
@click.option(
    "-o", "--out", type=FilePath, required=True, help="Folder to write; with --events a file."
)
@click.option("--readers", "names", multiple=True, help="Only these readers.")
@click.option(
    "--rule",
    type=click.Choice(["majority", "all", "adjudicated"]),
    default="majority",
    show_default=True,
    help="When several readers make a mitosis; what lies between is unsure.",
)
@click.option("--slides", type=FilePath, help="Where the slides are now, if they were moved.")
@click.option("--events", is_flag=True, help="Write what happened, as JSON lines.")
@click.option("--database", help="Where reviews are kept; default: reviews.sqlite in RESULTS.")
def export(results: Path, **given: Any) -> int:
    """Write decided marks as a data set to train on: mitoses, look-alikes, unsure, regions.

    Example: segmitos review export results -o mine
    """
    from segmitos.commands.review import run_export

    return run_export(results, **given)
