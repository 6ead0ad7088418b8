"""Jobs spread over processes of this machine, or over a Dask cluster.

A worker that dies takes its own job with it and no other; the job is tried once more elsewhere.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from segmitos.cohort.job import Job, run_job
from segmitos.errors import UsageError

Result = dict[str, Any]
Report = Callable[[str, int, int], None]
_ATTEMPTS = 2


def in_processes(jobs: Sequence[Job], workers: int, on_progress: Report) -> Iterator[Result]:
    """Yield results of jobs run in local processes, as they end.

    The CPU threads of the machine are shared among the processes.
    """
    from segmitos.detection.model import available_threads

    share = max(1, available_threads() // workers)
    pending: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        settings = replace(job.settings, threads=job.settings.threads or share)
        pending.put(replace(job, settings=settings))
    messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
    stop = threading.Event()
    feeders = [
        threading.Thread(target=_feed, args=(pending, messages, stop), daemon=True)
        for _ in range(workers)
    ]
    for feeder in feeders:
        feeder.start()
    left = len(jobs)
    try:
        while left:
            kind, content = messages.get()
            if kind == "progress":
                on_progress(*content)
            else:
                left -= 1
                yield content
    finally:
        stop.set()
    for feeder in feeders:
        feeder.join()


def _feed(
    pending: queue.SimpleQueue[Job],
    messages: queue.SimpleQueue[tuple[str, Any]],
    stop: threading.Event,
) -> None:
    """Keep one process busy until no job is left; replace it where it dies."""
    worker: _Worker | None = None
    while not stop.is_set():
        try:
            job = pending.get_nowait()
        except queue.Empty:
            break
        result: Result | None = None
        for _ in range(_ATTEMPTS):
            worker = worker or _Worker()
            result = worker.work(job, messages)
            if result is not None or stop.is_set():
                break
            worker = None
        messages.put(("result", result or _lost(job, f"its worker process died {_ATTEMPTS} times")))
    if worker is not None:
        worker.end()


class _Worker:
    """A process that does one job after the other, each sent through a pipe."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def work(self, job: Job, messages: queue.SimpleQueue[tuple[str, Any]]) -> Result | None:
        """Return the result of a job, or None where the process died."""
        try:
            self._pipe.send(job)
            while True:
                kind, content = self._pipe.recv()
                if kind == "result":
                    result: Result = content
                    return result
                messages.put((kind, content))
        except (EOFError, OSError):
            self._process.join()
            return None

    def end(self) -> None:
        self._pipe.close()
        self._process.join()


def _serve(pipe: Connection) -> None:
    """Do jobs until the pipe closes. Runs in the worker process."""
    # An interrupt is for the parent to act on; without a parent there is nobody to work for.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    while True:
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return
        last = 0.0

        def report(name: str, done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.2:
                last = time.monotonic()
                pipe.send(("progress", (name, done, total)))

        pipe.send(("result", run_job(job, report)))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def on_cluster(jobs: Sequence[Job], address: str) -> Iterator[Result]:
    """Yield results of jobs sent to a Dask scheduler, as they end.

    A job whose worker is lost is sent to another, up to the scheduler's own limit.

    Raises:
        UsageError: where Dask distributed is not installed, or no scheduler answers.
    """
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise UsageError("--cluster needs Dask distributed: pip install '.[cluster]'") from error
    connect: Callable[..., Any] = Client
    completed: Callable[..., Any] = as_completed
    try:
        client = connect(address, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(f"no Dask scheduler answers at {address}: {error}") from error
    with client:
        # A key of its own for every run: the scheduler must not hand out an earlier run's answer.
        stamp = time.time_ns()
        waiting = {
            client.submit(run_job, job, key=f"segmitos-{job.name}-{stamp}", pure=False): job
            for job in jobs
        }
        for future in completed(list(waiting)):
            job = waiting.pop(future)
            if future.status == "finished":
                yield future.result()
            elif future.status == "cancelled":
                yield _lost(job, "the cluster lost it")
            else:
                failure = future.exception()
                kind = type(failure).__name__
                reason = "several workers died on it" if kind == "KilledWorker" else str(failure)
                yield _lost(job, f"{kind}: {reason}")


def _lost(job: Job, reason: str) -> Result:
    hint = " (out of memory? try fewer workers)" if "died" in reason else ""
    first = " ".join(reason.split())[:300]
    return {
        "name": job.name,
        "path": job.path,
        "status": "failed",
        "message": f"{job.path}: {first}{hint}",
        "exit_code": 1,
    }
