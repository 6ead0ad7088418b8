"""Between the command line and the shell: exit codes, errors of one line, streams."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click

from segmitos.errors import InputError, SegMitosError
from segmitos.interrupts import MESSAGE, Interrupted, end_in_order, finish
from segmitos.io.error_log import OUT_OF_MEMORY, CaughtBugs, lacks_memory
from segmitos.io.files import display_path
from segmitos.io.text import reason_of
from segmitos.streams import output_failure, protect_streams


def run_app(app: click.Command, given: list[str]) -> int:
    """Run a command line; print one line for an expected error. Returns the exit code."""
    # An error that is our own goes whole into a file.
    with CaughtBugs(_log_folder(given), " ".join(given)) as caught:
        try:
            return run_script(lambda: app(args=given, prog_name="segmitos", standalone_mode=False))
        except click.ClickException as error:
            return _refuse(error, given)
    return _fail(caught.message, 1)


def _log_folder(given: list[str]) -> Path:
    """Return the folder of results that a call names, or else the working folder."""
    for index, argument in enumerate(given[:-1]):
        if argument in ("-o", "--out") and os.path.isdir(given[index + 1]):
            return Path(given[index + 1])
    return Path()


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
        if end.code == 128 + signal.SIGTERM:
            # Of a training, which saved itself first.
            print(f"{name}: {MESSAGE}", file=sys.stderr)
        if isinstance(end.code, str):
            return _fail(end.code, 1, name)
        return end.code or 0
    except click.Abort as abort:
        # What click makes of an interrupt.
        return _interrupted(abort.__cause__ or abort, name)
    except SegMitosError as error:
        return _fail(str(error), error.exit_code, name)
    except KeyboardInterrupt as stop:
        return _interrupted(stop, name)
    except (MemoryError, RuntimeError, ImportError, OSError) as error:
        if lacks_memory(error):
            return _fail(OUT_OF_MEMORY, 1, name)
        if not isinstance(error, FileNotFoundError) or _stands_somewhere():
            raise
        return _fail("the working folder has been deleted; change to another", 1, name)


def _interrupted(stop: BaseException, name: str) -> int:
    print(f"{name}: {MESSAGE}", file=sys.stderr)
    return stop.exit_code if isinstance(stop, Interrupted) else 130


def _stands_somewhere() -> bool:
    """Tell whether the working folder is there."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


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
            if not re.search(rf"(?<![\w.]){re.escape(value)}(?!\w)", message):
                message = f"{message.rstrip('.')}, not {value!r}"
    return _fail(f"{message.rstrip('.')}; see '{where} --help'", error.exit_code)


def _fail(message: str, code: int, name: str = "segmitos") -> int:
    print(f"{name}: error: {display_path(' '.join(message.split()))}", file=sys.stderr)
    return code


def run_console(main: Callable[[], int]) -> None:
    """Run a command line as a process: signals, streams, exit code."""
    protect_streams()
    try:
        end_in_order()
        code = main()
    except KeyboardInterrupt as stop:
        # Just before or after what `main` catches itself.
        code = _interrupted(stop, "segmitos")
    failure = output_failure()
    if failure:
        code = _fail(f"cannot write to standard output: {failure}", 1)
    finish(code)


def run_program(work: Callable[[], object], name: str) -> None:
    """Run the main function of a script as a process: as `run_script`, with signals and streams.

    A file or folder that cannot be read or written is an error of one line, too.
    """

    def checked() -> object:
        try:
            return work()
        except OSError as error:
            if error.filename is None:
                raise
            raise InputError(f"{error.filename}: {reason_of(error)}") from error

    run_console(lambda: run_script(checked, name))
