"""The command line: the verbs, in the order in which `segmitos --help` lists them.

The modules of `commands` import nothing heavy before their verb runs.
"""

from __future__ import annotations

import sys

import click

from segmitos.commands.convert import convert
from segmitos.commands.crossval import crossval
from segmitos.commands.dataset import dataset_app
from segmitos.commands.detect import demo, detect, report
from segmitos.commands.evaluate import evaluate
from segmitos.commands.model import model_app
from segmitos.commands.recount import recount
from segmitos.commands.review import review
from segmitos.commands.train import train
from segmitos.console import run_app, run_console
from segmitos.options import InOrder


@click.group(
    cls=InOrder, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True
)
@click.version_option(package_name="segmitos", message="%(prog)s %(version)s")
def app() -> None:
    """Find mitoses in H&E images and slides; train a detector from one click per mitosis."""


for verb in (
    detect,
    recount,
    train,
    crossval,
    evaluate,
    model_app,
    dataset_app,
    demo,
    report,
    review,
    convert,
):
    app.add_command(verb)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; print one line for an expected error. Returns the exit code."""
    return run_app(app, sys.argv[1:] if arguments is None else arguments)


def console() -> None:
    """Entry point of the `segmitos` script."""
    run_console(main)


if __name__ == "__main__":
    console()
