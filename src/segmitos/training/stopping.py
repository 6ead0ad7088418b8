"""Ctrl-C and SIGTERM in a training: noted, so that a step can end and be saved first."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
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


class StopRequest:
    """Notes the first signal; a second one acts at once. Only in the main thread."""

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self._number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {n: signal.signal(n, self._note) for n in self._SIGNALS}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._number = number
        self._restore()

    def check(self) -> None:
        """Raise if a signal came. To be called where the state may be saved.

        Raises:
            StopRequestedError: with its number.
        """
        if self._number is not None:
            raise StopRequestedError(self._number)
