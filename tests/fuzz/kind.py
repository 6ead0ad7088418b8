"""What a kind of input is, and what must not come out of reading one."""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from segmitos.errors import SegMitosError

from .mutate import mutate

SECONDS = 30


class HangError(BaseException):
    """An input took longer than `SECONDS`."""


@dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        name: unique.
        make: writes a sound input into an empty folder, and returns the files that are mutated.
        read: reads the input in that folder; an exit code where it is a command line.
        inputs: how many the quick test tries.
    """

    name: str
    make: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    inputs: int = 60


@dataclass
class Outcome:
    """What came of the inputs of one kind."""

    tried: int = 0
    refused: int = 0
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise HangError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def attempt(kind: Kind, folder: Path) -> tuple[str, bool]:
    """Read one input; return what is wrong with how it was taken ("" for nothing), and if refused.

    Anything raised but the package's own errors is wrong, as are a traceback on the console, an
    error without a message, and one of several lines.
    """
    out, err = io.StringIO(), io.StringIO()
    before = Path.cwd()
    os.chdir(folder)
    code: object = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limited():
            code = kind.read(folder)
    except SegMitosError as error:
        said = str(error)
        return ("" if said.strip() and "\n" not in said else f"message {said!r}"), True
    except HangError as error:
        return f"hang: {error}", False
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno} in {frame.name}"
        return f"{type(error).__name__} at {place}: {error}"[:300], False
    finally:
        os.chdir(before)
    if isinstance(code, int) and code:
        text = err.getvalue()
        if not text.strip():
            return f"exit code {code} without a word", True
        if "Traceback" in text or "errors.log" in text:
            return f"a fault on the console: {text[-300:]!r}", True
        return "", True
    return "", False


def run(
    kind: Kind,
    seed: int,
    count: int,
    folder: Path,
    failures: Path | None = None,
    start: int = 0,
) -> Outcome:
    """Mutate and read `count` inputs of a kind; the same seed gives the same inputs.

    Args:
        kind: of input.
        seed: of the mutations.
        count: inputs.
        folder: to work in.
        failures: where inputs that went wrong are kept; None keeps none.
        start: number of the first input.
    """
    outcome = Outcome()
    sound = folder / f"{kind.name}-sound"
    shutil.rmtree(sound, ignore_errors=True)
    sound.mkdir(parents=True)
    with contextlib.redirect_stdout(io.StringIO()):
        targets = [path.relative_to(sound) for path in kind.make(sound)]
    for number in range(start, start + count):
        rng = random.Random(f"{seed}/{kind.name}/{number}")
        # So deep that `../..`, which a list may be made to name, is no folder of anybody's.
        place = folder / kind.name / "below" / "here"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(sound, place)
        target = rng.choice(targets)
        content = mutate((sound / target).read_bytes(), target.name, rng)
        (place / target).write_bytes(content)
        wrong, refused = attempt(kind, place)
        outcome.tried += 1
        outcome.refused += refused
        if wrong:
            outcome.failures.append(f"{kind.name} {number} ({target}): {wrong}")
            if failures is not None:
                kept = failures / f"{kind.name}-{number}"
                kept.mkdir(parents=True, exist_ok=True)
                (kept / target.name).write_bytes(content)
                (kept / "what.txt").write_text(outcome.failures[-1] + "\n")
    shutil.rmtree(folder / kind.name, ignore_errors=True)
    return outcome
