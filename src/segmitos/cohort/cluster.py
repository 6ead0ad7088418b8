"""Jobs sent to a Dask cluster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from segmitos.cohort.job import Job, Outcome, fail, run_job
from segmitos.errors import UsageError

_POLL_S = 0.1
_FIRST_NOTE_S, _NOTE_EVERY_S = 3.0, 30.0


def on_cluster(
    jobs: Sequence[Job], address: str, on_note: Callable[[str], None] = lambda text: None
) -> Iterator[Outcome]:
    """Yield results of jobs sent to a Dask scheduler, as they end.

    A job whose worker is lost is sent to another, up to the scheduler's own limit.

    Args:
        jobs: with paths that the workers see, too.
        address: of the scheduler.
        on_note: told where nothing can go on, and that it is waited.

    Raises:
        UsageError: where Dask distributed is not installed, or no scheduler answers.
    """
    try:
        import distributed
    except ImportError as error:
        raise UsageError(
            "--cluster needs Dask distributed: in the source folder, pip install '.[cluster]'"
        ) from error
    connect: Callable[..., Any] = distributed.Client
    completed: Callable[..., Any] = distributed.as_completed
    try:
        client = connect(address, timeout="20s")
    except (OSError, TimeoutError, ValueError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address}: {error}; start one with 'dask scheduler' and "
            "give its address, tcp://HOST:8786"
        ) from error
    # What it logs of a lost connection, with a traceback, is said here in a line.
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    with client:
        # A key of its own for every run: the scheduler must not hand out an earlier run's answer.
        stamp = time.time_ns()
        waiting = {
            client.submit(run_job, job, key=f"segmitos-{job.name}-{stamp}", pure=False): job
            for job in jobs
        }
        ended = completed(list(waiting))
        next_check = time.monotonic() + _FIRST_NOTE_S
        while waiting:
            batch = ended.next_batch(block=False)
            for future in batch:
                yield _outcome(future, waiting.pop(future))
            if batch:
                continue
            if time.monotonic() >= next_check:
                note = _obstacle(client, address)
                if note:
                    on_note(note)
                next_check = time.monotonic() + (_NOTE_EVERY_S if note else _FIRST_NOTE_S)
            time.sleep(_POLL_S)


def _obstacle(client: Any, address: str) -> str:
    """Say why nothing can go on, "" where it can."""
    if client.status != "running":
        return f"the Dask scheduler at {address} does not answer; waiting for it"
    if not client.scheduler_info(n_workers=-1)["workers"]:
        return (
            f"the Dask scheduler at {address} has no workers; waiting for one "
            f"(start it with: dask worker {address} --nthreads 1)"
        )
    return ""


def _outcome(future: Any, job: Job) -> Outcome:
    if future.status == "cancelled":
        return fail(job, f"{job.path}: the cluster lost it (was its scheduler stopped?)")
    # This waits where a result was lost with its worker and is being made again.
    failure = future.exception()
    if failure is None:
        outcome: Outcome = future.result()
        return outcome
    kind = type(failure).__name__
    reason = "several workers died on it" if kind == "KilledWorker" else str(failure)
    short = " ".join(f"{kind}: {reason}".split())[:300]
    return fail(job, f"{job.path}: {short} (out of memory? try fewer workers a node)")
