"""Run mutated inputs by hand, in processes that may die without ending the run."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from pathlib import Path

import click

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from .batch import work
from .kinds import KINDS

_BATCH = 250
_MAX_MB = 1024


@click.command()
@click.option("--inputs", default=3000, show_default=True, help="Inputs, over all kinds.")
@click.option("--seed", default=0, show_default=True, help="The same seed gives the same inputs.")
@click.option("--kind", "names", multiple=True, help="Only these kinds; a beginning is enough.")
@click.option("--out", default="fuzz-failures", show_default=True, help="Where failures are kept.")
def main(inputs: int, seed: int, names: tuple[str, ...], out: str) -> None:
    """Mutate and read inputs; exit code 1 where anything but our own errors came out."""
    chosen = [name for name in KINDS if not names or name.startswith(tuple(names))]
    each = max(1, -(-inputs // len(chosen)))
    context = multiprocessing.get_context("spawn")
    failures: list[str] = []
    tried = refused = 0
    peak_mb = 0.0
    for name in chosen:
        began, before = time.monotonic(), len(failures)
        for start in range(0, each, _BATCH):
            count = min(_BATCH, each - start)
            folder = tempfile.mkdtemp(prefix="fuzz-")
            arguments = (name, seed, count, start, folder, str(Path(out).absolute()))
            process = context.Process(target=work, args=arguments)
            process.start()
            process.join()
            found = Path(folder) / "outcome.json"
            if found.is_file():
                content = json.loads(found.read_text())
                failures += content["failures"]
                tried += content["tried"]
                refused += content["refused"]
                peak_mb = max(peak_mb, content["peak_mb"])
                if content["peak_mb"] > _MAX_MB:
                    failures.append(f"{name} {start}..: took {content['peak_mb']:.0f} MB")
            else:
                failures.append(f"{name} {start}..: the process died ({process.exitcode})")
            shutil.rmtree(folder, ignore_errors=True)
        seconds = time.monotonic() - began
        print(f"{name:<24} {each:6d} inputs, {len(failures) - before} failures, {seconds:.0f} s")
        for failure in failures[before : before + 10]:
            print(f"    {failure}")
    print(
        f"{tried} inputs, {refused} refused, {len(failures)} failures, "
        f"{peak_mb:.0f} MB at most; failures in {out}"
    )
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
