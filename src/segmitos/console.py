"""Between the command line and the shell: exit codes, errors of one line, streams."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import click

from segmitos.errors import SegMitosError


def run_app(app: click.Command, given: list[str]) -> int:
    """Run a command line; print one line for an expected error. Returns the exit code."""
    try:
        return run_script(lambda: app(args=given, prog_name="segmitos", standalone_mode=False))
    except click.ClickException as error:
        return _refuse(error, given)


def run_script(work: Callable[[], object], name: str = "segmitos") -> int:
    """Run the main function of a script; print one line for an expected error.

    Args:
        work: to be run; what it returns is the exit code, if it is a whole number.
        name: of the script, for the line.

    Returns:
        The exit code.
    """
    try:
        code = work()
        return code if isinstance(code, int) else 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    except SegMitosError as error:
        return _fail(str(error), error.exit_code, name)
    except (KeyboardInterrupt, click.Abort):
        # click raises Abort in the place of KeyboardInterrupt.
        return _fail("interrupted; run the same command again to go on", 130, name)
    except MemoryError:
        return _fail("out of memory; try fewer --workers", 1, name)


def _refuse(error: click.ClickException, given: list[str]) -> int:
    """Say in one line what is wrong with the call, with the value that was given."""
    message = error.format_message()
    if "\n" in message:
        # A verb without its arguments: the help, which click raises as an error.
        print(message)
        return error.exit_code
    context = getattr(error, "ctx", None)
    where = "segmitos" if context is None else context.command_path
    names = getattr(getattr(error, "param", None), "opts", [])
    for index, argument in enumerate(given):
        name, equals, value = argument.partition("=")
        if name in names:
            value = value if equals else " ".join(given[index + 1 : index + 2])
            if repr(value) not in message:
                message = f"{message.rstrip('.')}, not {value!r}"
    return _fail(f"{message.rstrip('.')}; see '{where} --help'", error.exit_code)


def _fail(message: str, code: int, name: str = "segmitos") -> int:
    print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)
    return code


def run_console(main: Callable[[], int]) -> None:
    """Run a command line as a process: flush what it printed, and exit with its code."""
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output, `head` say, has seen enough; nothing more can be told to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
