"""Trains the verifiers of `experiments.laboratories` on one GPU, in minutes.

    python -m experiments.gpu pack DATA PACK
    python -m experiments.gpu train PACK OUT --device cuda --seeds 0 1 2 --minutes 3
    python -m experiments.gpu train PACK OUT --device cuda --seeds 0 1 2 --minutes 6 --input-px 128

The first command writes one file of what verifiers learn from, small enough to be carried to a
machine with a GPU. The others train there, for every seed, the small and the large verifier of each
fold, which `experiments.laboratories` takes for its own where it finds them in its OUT. Batches are
cut and augmented on the device; JPEG compression, too, is imitated there. The networks of the map
and the proposal network need whole fields, which the file does not hold: train them as before.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.arguments import within
from segmitos.console import run_program


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    pack = commands.add_parser("pack", help="write one file of what verifiers learn from")
    pack.add_argument("data", type=Path)
    pack.add_argument("pack", type=Path)
    pack.add_argument("--share", type=within(0.0, 1.0), default=0.1, help="of the fields' nuclei")
    pack.add_argument("--quality", type=within(0, 100), default=75, help="of WebP")
    pack.add_argument("--megabytes", type=within(0.0), default=60.0, help="that the file may have")
    pack.add_argument("--ranked-by", default="lite", help="built-in name or .segmitos file")
    pack.add_argument("--threads", type=within(1), default=1)
    pack.set_defaults(run=_pack)
    train = commands.add_parser("train", help="train the verifiers of all folds and seeds")
    train.add_argument("pack", type=Path)
    train.add_argument("out", type=Path)
    train.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    train.add_argument("--seeds", type=within(0), nargs="+", default=[0, 1, 2])
    train.add_argument("--minutes", type=within(0.0), default=10.0, help="for all of them")
    train.add_argument("--steps", type=within(1), default=1800, help="of each at most")
    train.add_argument("--batch", type=within(2), default=64)
    train.add_argument("--input-px", type=int, choices=(64, 128), default=64)
    train.set_defaults(run=_train)
    given = parser.parse_args(arguments)
    given.run(given)


def _pack(given: argparse.Namespace) -> None:
    from experiments.gpu.packing import pack
    from experiments.laboratories.data import load_laboratories
    from segmitos.detection.model import find_model
    from segmitos.detection.model_file import read_model_file
    from segmitos.detection.runtimes import open_onnxruntime

    graph = read_model_file(find_model(given.ranked_by)).networks[0]
    network = open_onnxruntime(graph, given.ranked_by, "cpu", given.threads)[0]
    images = load_laboratories(given.data)
    most_bytes = int(given.megabytes * 1e6)
    counts = pack(images, given.pack, network, given.share, given.quality, most_bytes)
    print(f"{given.pack}: {given.pack.stat().st_size / 1e6:.1f} MB")
    for name, (mitoses, others) in counts.items():
        print(f"{name}: {mitoses} mitoses, {others} other cells")


def _train(given: argparse.Namespace) -> None:
    from experiments.gpu.packing import read_pack
    from experiments.gpu.training import train_verifiers
    from segmitos.training.train_verifier import VerifierRecipe

    recipe = VerifierRecipe(steps=given.steps, batch=given.batch, pretrained=False)
    train_verifiers(
        read_pack(given.pack), given.out, recipe, given.seeds, given.input_px, given.device,
        60 * given.minutes, lambda line: print(line, flush=True),
    )  # fmt: skip


if __name__ == "__main__":
    run_program(main, "experiments.gpu")
