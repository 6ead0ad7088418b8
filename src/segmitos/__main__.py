"""`python -m segmitos`, and the `segmitos` script."""

from segmitos.interrupts import end_at_once


def start() -> None:
    """Run the command line; a signal is answered in one line from the first import on."""
    end_at_once()
    from segmitos.cli import console

    console()


if __name__ == "__main__":
    start()
