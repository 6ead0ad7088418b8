"""Mutated inputs by hand: `python -m tests.fuzz --inputs 30000 --seed 7`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE.parent)]


def kinds() -> list[str]:
    """The modules that hold targets."""
    helpers = ("__init__", "__main__", "harness")
    names = [path.stem for path in sorted(HERE.glob("*.py"))]
    return [name for name in names if name not in helpers and not name.startswith("test_")]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kind", choices=kinds(), help="only this kind of input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-findings"))
    options = parser.parse_args()
    chosen = [options.kind] if options.kind else kinds()
    from tests.fuzz.harness import run

    total = 0
    for number, name in enumerate(chosen):
        module = import_module(f"tests.fuzz.{name}")
        share = (options.inputs * (number + 1)) // len(chosen) - (options.inputs * number) // len(
            chosen
        )
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            findings = run(module.targets(Path(folder)), share, options.seed, Path(folder))
        print(
            f"{name}: {share} inputs of seed {options.seed} in {time.monotonic() - began:.0f} s, "
            f"{len(findings)} findings"
        )
        for (what, where), count in Counter((f.what, f.where) for f in findings).most_common():
            print(f"  {count} x {what} at {where}")
        for finding in findings:
            finding.save(options.keep / name)
        total += len(findings)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
