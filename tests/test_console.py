"""Programs beside the commands: one line for an error, silence where the reader is gone."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys

import pytest

from segmitos import console
from segmitos.console import run_script
from segmitos.interrupts import Interrupted
from segmitos.io.error_log import OUT_OF_MEMORY


def test_an_error_in_words_is_one_line(capsys):
    def work() -> None:
        sys.exit("no fields here")

    assert run_script(work, "experiments.x") == 1
    assert capsys.readouterr().err == "experiments.x: error: no fields here\n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    call = [sys.executable, "-m", "experiments.label_kinds", "--out", str(tmp_path), "--table"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_who_took_the_streams_before_may_write_to_them_still():
    code = (
        "import logging, sys\n"
        "from segmitos.console import run_console\n"
        "logger = logging.getLogger('library')\n"
        "logger.addHandler(logging.StreamHandler())\n"
        "before = sys.stdout\n"
        "def work():\n"
        "    logger.warning('the library says this')\n"
        "    print('first')\n"
        "    before.write('second\\n')\n"
        "    return 0\n"
        "run_console(work)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr == "the library says this\n"
    assert sorted(done.stdout.split()) == ["first", "second"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    code = "import sys, pathlib; from segmitos.console import run_program; "
    code += "run_program(lambda: pathlib.Path(sys.argv[1]).mkdir(), 'experiments.x')"
    place = str(tmp_path / "file" / "out")
    done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr == f"experiments.x: error: {place}: Not a directory\n"


@pytest.mark.parametrize("place", ["__del__", "a weak reference", "a C callback"])
def test_an_interrupt_where_nothing_can_be_raised_ends_the_program_all_the_same(place):
    code = """
import ctypes, os, signal, sys, time, weakref
from segmitos.console import run_program

class Object:
    pass

class Closing:
    def __del__(self):
        interrupt()

def interrupt(*arguments):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)
    return 0

def work():
    if sys.argv[1] == "__del__":
        Closing()
    elif sys.argv[1] == "a weak reference":
        thing = Object()
        reference = weakref.ref(thing, interrupt)
        del thing
    else:
        ctypes.CFUNCTYPE(ctypes.c_int)(interrupt)()
    time.sleep(20)
    print("went on")

run_program(work, "experiments.x")
"""
    done = subprocess.run([sys.executable, "-c", code, place], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stdout == ""
    assert done.stderr == "experiments.x: interrupted; run the same command again to go on\n"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        ImportError("/lib/_ssl.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_too_little_memory_is_one_line_whoever_says_it(capsys, error):
    def work() -> None:
        raise error

    assert run_script(work) == 1
    assert capsys.readouterr().err == f"segmitos: error: {OUT_OF_MEMORY}\n"


def test_other_errors_of_libraries_are_not_taken_for_it():
    def work() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_script(work)


def test_a_signal_before_the_work_begins_is_one_line(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(console, "finish", codes.append)
    monkeypatch.setattr(console, "end_in_order", lambda: None)
    monkeypatch.setattr(console, "protect_streams", lambda: None)

    def stopped():
        raise Interrupted(signal.SIGINT)

    console.run_console(stopped)
    assert codes == [130]
    assert capsys.readouterr().err.count("\n") == 1
