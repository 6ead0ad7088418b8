"""Trains a network of the map and a proposal network without some laboratories or scanners.

    python -m experiments.laboratories.networks DATA OUT --without mitos14

They learn from the fields and crops that are left, but for the paper's validation slide, by the
recipes `lite` and `proposal`; cells that `experiments/labels` lists are unsure. Both are written to
OUT/networks.segmitos, in int8: `experiments.laboratories` and
`experiments.laboratories.unseen` take that file as `--networks`. Stopped, it goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from experiments.arguments import laboratories_parser, within
from experiments.laboratories.data import (
    CROP_GROUPS,
    FIELDS,
    TEST_SLIDE,
    crop_group,
    laboratory_cases,
    with_unsure,
)
from segmitos.commands.progress import TrainingProgress
from segmitos.console import run_program
from segmitos.errors import UsageError
from segmitos.io.datasets import Case
from segmitos.training.combine import combine
from segmitos.training.export import export_run
from segmitos.training.quantize import calibration_cases, quantize
from segmitos.training.recipe import load_recipe
from segmitos.training.train import train

LICENSE = "research use only: trained on data under CC BY-NC-ND and challenge terms"


def main() -> None:
    parser = laboratories_parser(".networks", __doc__)
    parser.add_argument(
        "--without",
        nargs="+",
        default=[],
        choices=[*FIELDS, *CROP_GROUPS],
        help="laboratories, and scanners of the crops, to leave out",
    )
    parser.add_argument("--seed", type=within(0), default=0, help="of the trainings")
    given = parser.parse_args()
    cases = cases_without(given.data, given.without)
    make_networks(cases, given.out, given.seed, given.threads)


def cases_without(data: Path, left_out: Sequence[str]) -> list[Case]:
    """Read what networks of the map learn from, but for some laboratories and scanners.

    Raises:
        UsageError: where nothing is left.
    """
    cases = []
    for laboratory in (*FIELDS, "crops"):
        if laboratory not in left_out:
            cases += [
                case
                for case in with_unsure(laboratory, laboratory_cases(data, laboratory))
                if not _is_left_out(laboratory, case, left_out)
            ]
    if not cases:
        raise UsageError(f"--without {' '.join(left_out)}: nothing is left to learn from")
    return cases


def _is_left_out(laboratory: str, case: Case, left_out: Sequence[str]) -> bool:
    if laboratory == "crops":
        return crop_group(case.slide) in left_out
    return laboratory == "mitos14" and case.slide.startswith(TEST_SLIDE)


def make_networks(cases: Sequence[Case], out: Path, seed: int, threads: int) -> Path:
    """Train both networks, and write them as one model file.

    Args:
        cases: to learn from.
        out: folder of the runs and model files.
        seed: of both trainings.
        threads: of the CPU.

    Returns:
        The model file, OUT/networks.segmitos.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name in ("lite", "proposal"):
        recipe = msgspec.structs.replace(load_recipe(name), seed=seed)
        with TrainingProgress() as progress:
            train(cases, out / name, recipe, on_event=progress, accelerator="cpu", threads=threads)
        export_run(out / name, out / f"{name}.segmitos", name=name, license=LICENSE)
    floats, file = out / "floats.segmitos", out / "networks.segmitos"
    # The coarsest stride of the recipe `lite` is 16.
    combine([out / "lite.segmitos"], floats, out / "proposal.segmitos", name="lite", grid_px=16)
    chosen = calibration_cases(cases, len({case.dataset for case in cases}))
    quantize(floats, chosen, file, threads)
    print(f"{file}: networks of the map and of its proposals, {len(cases)} images")
    return file


if __name__ == "__main__":
    run_program(main, "experiments.laboratories.networks")
