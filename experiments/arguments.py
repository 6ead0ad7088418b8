"""Options that several experiments share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

Number = TypeVar("Number", int, float)


def within(low: Number, high: Number | None = None) -> Callable[[str], Number]:
    """Return what reads a number of the limits' type, and refuses one beyond them."""

    def number(text: str) -> Number:
        value = type(low)(text)
        if not (low <= value and (high is None or value <= high)):
            limit = f"at least {low}" if high is None else f"from {low} to {high}"
            raise argparse.ArgumentTypeError(f"{text} is not {limit}")
        return value

    return number


def laboratories_parser(module: str, about: str | None) -> argparse.ArgumentParser:
    """Return a parser with what every experiment on all laboratories is given.

    Args:
        module: its name after `experiments.laboratories`, from the dot on; may be empty.
        about: its docstring.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.laboratories{module}", description=about
    )
    parser.add_argument("data", type=Path, help="folder of all data sets")
    parser.add_argument("out", type=Path, help="folder for weights, figures and model files")
    parser.add_argument("--threads", type=within(1), default=1, help="of the CPU")
    return parser


def add_verifier_options(parser: argparse.ArgumentParser, seeds: Sequence[int]) -> None:
    """Add how the verifiers of a fold are trained; `seeds` by default."""
    parser.add_argument("--begin", type=Path, help="run of a network of the map; else ImageNet")
    parser.add_argument(
        "--steps",
        type=within(1),
        nargs=2,
        default=[1200, 1000],
        help="of the small and the large verifier",
    )
    parser.add_argument(
        "--seeds", type=within(0), nargs="+", default=seeds, help="of the verifiers"
    )
