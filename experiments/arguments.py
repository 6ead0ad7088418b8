"""Types of options that several experiments share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
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
