"""Processes for jobs: what they leave where they end without warning."""

import subprocess
import sys

ENDS = """
import os
import segmitos.cohort.workers as workers
from multiprocessing import resource_tracker
{start}
resource_tracker.register("/no-such-semaphore", "semaphore")
os._exit(0)
"""


def ended(start: str) -> str:
    """Standard error of a process that ends with a semaphore on record, and of its tracker."""
    done = subprocess.run(
        [sys.executable, "-c", ENDS.format(start=start)], stderr=subprocess.PIPE, text=True
    )
    return done.stderr


def test_semaphores_left_by_an_interrupt_are_removed_without_a_word():
    assert ended("workers.start_resource_tracker()") == ""


def test_python_itself_warns_of_them():
    assert "resource_tracker" in ended("resource_tracker.ensure_running()")


def test_the_options_of_this_process_stay():
    from segmitos.cohort.workers import start_resource_tracker

    before = list(sys.warnoptions)
    start_resource_tracker()
    assert sys.warnoptions == before
