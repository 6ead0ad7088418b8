"""Verifiers of all folds and seeds from a pack, one after the other, within a given time."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from experiments.gpu.packing import Pack
from experiments.gpu.patches import PatchReader
from experiments.laboratories.pools import FOLDS, stains_of, verifier_file
from segmitos.errors import OutputError, UsageError
from segmitos.io.files import write_bytes
from segmitos.training.checkpoint import (
    STATE,
    TrainingState,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from segmitos.training.networks.verifier import VerifierNetwork
from segmitos.training.train_verifier import Pool, VerifierRecipe, VerifierTraining, begin_encoder

_SAVE_S = 20.0


def train_verifiers(
    pack: Pack,
    out: Path,
    recipe: VerifierRecipe,
    seeds: Sequence[int],
    input_px: int,
    device: str,
    seconds: float,
    tell: Callable[[str], None],
    save_s: float = _SAVE_S,
) -> None:
    """Train the verifiers that are not there yet; stopped, it goes on where it was.

    Each has its share of the time that is left, and learns at a rate that falls to its end with
    the steps or the time, whichever ends first.

    Args:
        pack: to learn from.
        out: folder of the weights, `verifier-NAME-SIDEpx-seedN.safetensors`.
        recipe: of each training but for its seed; the encoder begins with that of the pack.
        seeds: of the trainings of each fold.
        input_px: side that the networks interpolate patches to.
        device: `cpu`, or `cuda`, where the patches too are made.
        seconds: for all of them.
        tell: told of every hundredth step, and of each network that is done.
        save_s: seconds between two checkpoints.

    Raises:
        UsageError: where there is no such device.
        OutputError: where a file or checkpoint is of another training.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device cuda: torch finds no GPU; choose --device cpu")
    deadline = time.monotonic() + seconds
    reader = PatchReader(pack.images, device)
    todo = []
    for seed in seeds:
        for fold in FOLDS:
            path = out / verifier_file(fold, input_px, seed)
            training = _Training(pack, fold, dataclasses.replace(recipe, seed=seed), input_px, path)
            if not training.is_done():
                todo.append(training)
    for index, training in enumerate(todo):
        share_s = (deadline - time.monotonic()) / (len(todo) - index)
        training.run(reader, device, max(1.0, share_s), tell, save_s)


@dataclasses.dataclass(frozen=True)
class _Training:
    """One verifier to be trained."""

    pack: Pack
    fold: int
    recipe: VerifierRecipe
    input_px: int
    path: Path

    @property
    def _identity(self) -> str:
        content = {
            "pack": self.pack.sha256,
            "input_px": self.input_px,
            **dataclasses.asdict(self.recipe),
        }
        return json.dumps(content, sort_keys=True)

    def is_done(self) -> bool:
        if not self.path.exists():
            return False
        with safe_open(self.path, "pt") as file:
            self._check((file.metadata() or {}).get("training", ""))
        return True

    def run(
        self,
        reader: PatchReader,
        device: str,
        seconds: float,
        tell: Callable[[str], None],
        save_s: float,
    ) -> None:
        pools, stains = self.pack.pools_of(self.fold), stains_of(self.pack.images, self.fold)
        torch.manual_seed(self.recipe.seed)
        network = VerifierNetwork(self.input_px)
        begin_encoder(network, self.pack.encoder)
        training = VerifierTraining(network, pools, self.recipe, device)
        folder = self.path.with_suffix("")
        step, done_before = 0, 0.0
        if (folder / STATE).exists():
            step, done_before = self._restore(folder, training, pools)
        began = saved = time.monotonic()
        done, loss = done_before, 0.0
        while done < 1:
            loss = training.take_step(
                step, lambda points, rng: reader.augmented(points, stains, rng), done
            )
            step += 1
            now = time.monotonic()
            of_time = done_before + (1 - done_before) * (now - began) / seconds
            done = max(step / self.recipe.steps, of_time)
            if step % 100 == 0:
                tell(f"{self.path.stem}: step {step}, loss {loss:.4f}, {now - began:.0f} s")
            if now - saved >= save_s and done < 1:
                self._save(folder, training, pools, step, done)
                saved = now
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        metadata = {
            "training": self._identity,
            "steps_taken": str(step),
            "device": name,
            "torch": str(torch.__version__),
        }
        weights = {k: v.cpu().contiguous() for k, v in training.finish().state_dict().items()}
        write_bytes(self.path, save(weights, metadata))
        shutil.rmtree(folder, ignore_errors=True)
        tell(f"{self.path.stem}: done after {step} steps, {time.monotonic() - began:.0f} s, {name}")

    def _save(
        self,
        folder: Path,
        training: VerifierTraining,
        pools: dict[str, Pool],
        step: int,
        done: float,
    ) -> None:
        groups: dict[str, dict[str, Tensor]] = {
            "network": training.network.state_dict(),
            "average": training.average,
            "optimizer": optimizer_tensors(training.optimizer),
            "scores": {name: torch.from_numpy(pool.scores) for name, pool in pools.items()},
            "clock": {"done": torch.tensor(done, dtype=torch.float64)},
        }
        save_checkpoint(folder, groups, TrainingState(step=step, identity=self._identity))

    def _restore(
        self, folder: Path, training: VerifierTraining, pools: dict[str, Pool]
    ) -> tuple[int, float]:
        """Take up a checkpoint; return its step and the share that was done."""
        groups, state = load_checkpoint(folder)
        self._check(state.identity)
        training.network.load_state_dict(groups["network"])
        for name, value in groups["average"].items():
            training.average[name].copy_(value)
        restore_optimizer(training.optimizer, groups["optimizer"])
        for name, pool in pools.items():
            pool.scores[:] = groups["scores"][name].numpy()
        return state.step, float(groups["clock"]["done"])

    def _check(self, identity: str) -> None:
        if identity != self._identity:
            raise OutputError(
                f"{self.path.with_suffix('')}: its weights or checkpoint are of another pack or "
                "of other options; choose another OUT"
            )
