"""Jobs sent to a Dask cluster."""

from __future__ import annotations

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
        raise UsageError("--cluster needs Dask distributed: pip install '.[cluster]'") from error
    connect: Callable[..., Any] = distributed.Client
    completed: Callable[..., Any] = distributed.as_completed
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
        ended = completed(list(waiting))
        patience = _Patience(client, address, on_note)
        while waiting:
            batch = ended.next_batch(block=False)
            for future in batch:
                yield _outcome(future, waiting.pop(future))
            if not batch:
                patience.check()
                time.sleep(_POLL_S)


class _Patience:
    """Says aloud, at once and then now and then, why nothing goes on."""

    def __init__(self, client: Any, address: str, on_note: Callable[[str], None]) -> None:
        self._client, self._address, self._on_note = client, address, on_note
        self._next = time.monotonic() + _FIRST_NOTE_S

    def check(self) -> None:
        if time.monotonic() < self._next:
            return
        if self._client.status != "running":
            self._say(f"the Dask scheduler at {self._address} does not answer; waiting for it")
        elif not self._client.scheduler_info(n_workers=-1)["workers"]:
            self._say(
                f"the Dask scheduler at {self._address} has no workers; waiting for one "
                f"(start it with: dask worker {self._address} --nthreads 1)"
            )
        else:
            self._next = time.monotonic() + _FIRST_NOTE_S

    def _say(self, text: str) -> None:
        self._on_note(text)
        self._next = time.monotonic() + _NOTE_EVERY_S


def _outcome(future: Any, job: Job) -> Outcome:
    if future.status == "cancelled":
        return fail(job, f"{job.path}: the cluster lost it")
    # This waits where a result was lost with its worker and is being made again.
    failure = future.exception()
    if failure is None:
        outcome: Outcome = future.result()
        return outcome
    kind = type(failure).__name__
    reason = "several workers died on it" if kind == "KilledWorker" else str(failure)
    short = " ".join(f"{kind}: {reason}".split())[:300]
    return fail(job, f"{job.path}: {short} (out of memory? try fewer workers a node)")
