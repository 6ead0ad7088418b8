"""Jobs spread over processes of this machine.

A worker that dies takes its own job with it and no other; the job is tried once more in another.
Every worker is a pool of one process, since a larger pool breaks as a whole where one dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path

from segmitos.cohort.job import Job, Outcome, fail, run_job
from segmitos.io.error_log import CaughtBugs

_ATTEMPTS = 2


def in_processes(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Yield results of jobs run in local processes, as they end.

    The CPU threads of the machine are shared among the processes, which are killed where the
    caller stops early.
    """
    from segmitos.detection.model import available_threads

    share = max(1, available_threads() // workers)
    pending: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        settings = replace(job.settings, threads=job.settings.threads or share)
        pending.put(replace(job, settings=settings))
    outcomes: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    stop = threading.Event()
    start_resource_tracker()
    feeders = [
        threading.Thread(target=_feed, args=(pending, outcomes, stop), daemon=True)
        for _ in range(workers)
    ]
    for feeder in feeders:
        feeder.start()
    try:
        for _ in jobs:
            yield outcomes.get()
    finally:
        stop.set()
        # They are idle where all is done; else nobody waits for their work any more.
        for process in multiprocessing.active_children():
            process.kill()
        for feeder in feeders:
            feeder.join(timeout=0.2)


def start_resource_tracker() -> None:
    """Start Python's own process that removes the semaphores of pools, as one that says nothing.

    An interrupt ends this process wherever a pool is being taken down; the warnings that follow
    would come after the line that says what to do. To be called before a thread blocks signals,
    since the start unblocks them in its thread.
    """
    sys.warnoptions.append("ignore::UserWarning:multiprocessing.resource_tracker")
    try:
        resource_tracker.ensure_running()
    finally:
        sys.warnoptions.pop()


def _feed(
    pending: queue.SimpleQueue[Job], outcomes: queue.SimpleQueue[Outcome], stop: threading.Event
) -> None:
    """Keep one process busy until no job is left; replace it where it dies."""
    # Worker processes inherit this: an interrupt is for their parent to act on.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    worker = _new_worker()
    while not stop.is_set():
        try:
            job = pending.get_nowait()
        except queue.Empty:
            break
        outcome = None
        with CaughtBugs(Path(job.out), job.path) as caught:
            for _ in range(_ATTEMPTS):
                try:
                    outcome = worker.submit(run_job, job).result()
                    break
                except BrokenProcessPool:
                    if stop.is_set():
                        return
                    worker.shutdown(wait=False)
                    worker = _new_worker()
        reason = f"its worker process died {_ATTEMPTS} times (out of memory? try fewer workers)"
        outcomes.put(outcome or fail(job, f"{job.path}: {caught.message or reason}"))
    worker.shutdown(wait=False)


def _new_worker() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_start)


def _start() -> None:
    """Prepare a worker process: without its parent there is nobody to work for."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        with contextlib.suppress(OSError):
            parent.join()
        os._exit(1)
