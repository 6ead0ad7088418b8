"""How a benchmark ends on wrong input: in one line, as `segmitos` does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from segmitos.errors import SegMitosError


def run(main: Callable[[], None]) -> None:
    """Run a benchmark; an expected error becomes one line and the exit code of its kind."""
    try:
        main()
    except SegMitosError as error:
        _end(str(error), error.exit_code)
    except OSError as error:
        _end(str(error), 1)
    except KeyboardInterrupt:
        _end("interrupted", 130)


def _end(message: str, code: int) -> None:
    print(f"{Path(sys.argv[0]).name}: error: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)
