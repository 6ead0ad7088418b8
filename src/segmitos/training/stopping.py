"""Ctrl-C and SIGTERM in a training: noted, so that a step can end and be saved first."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequestedError(BaseException):
    """A signal asked to stop. Not an `Exception`: nothing but the training loop handles it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def end(self) -> BaseException:
        """Return what ends the program as the signal would have: KeyboardInterrupt, or exit 143."""
        if self.number == signal.SIGINT:
            return KeyboardInterrupt()
        return SystemExit(128 + self.number)


@contextmanager
def stop_requests() -> Iterator[Callable[[], None]]:
    """Note the first signal; a second one acts at once. Only in the main thread.

    Yields:
        What raises `StopRequestedError` if a signal came: called where the state may be saved.
    """
    noted: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        while before:
            signal.signal(*before.popitem())

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        restore()

    def check() -> None:
        if noted:
            raise StopRequestedError(noted[0])

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield check
    finally:
        restore()
