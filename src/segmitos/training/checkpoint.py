"""Training checkpoints: safetensors for tensors, JSON for the rest; nothing is ever unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from segmitos.errors import ModelError
from segmitos.io.files import remove_file, write_bytes, write_json
from segmitos.io.text import reason_of

FORMAT_VERSION = 2
STATE = "checkpoint.json"
RECIPE_FILE, PROVENANCE, THRESHOLDS = "recipe.json", "provenance.json", "thresholds.json"
HISTORY, PAGE = "history.csv", "training.html"
"""What else lies in the folder of a run, beside the tensors and the model."""

PointList = list[tuple[float, float]]


class TrainingState(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint holds beside its tensors, as JSON."""

    step: Annotated[int, Meta(ge=0)]
    """Optimizer steps taken."""
    recipe: dict[str, Any] = {}
    """As `Recipe.to_dict` gives it."""
    identity: str = ""
    """Digest of the run's identity (`training.identity`)."""
    mined_at: list[int] = []
    """Steps after which false positives were mined."""
    mined: dict[str, PointList] = {}
    """Mined false positives by image, in pixels of the recipe's scale."""
    ignored: dict[str, PointList] = {}
    """False positives that may be mitoses nobody labeled, in the same way."""
    stain: dict[str, tuple[float, float, float]] | None = None
    """Mean and standard deviation of the training slides' common staining."""
    losses: tuple[float, ...] = ()
    """Of the steps since the last epoch ended."""
    history: list[dict[str, float | int]] = []
    """One entry an epoch."""
    spent_s: Annotated[float, Meta(ge=0)] = 0.0
    """Time that it took so far, where it has a time budget."""
    tensors: Annotated[str, Meta(pattern=r"^checkpoint-\d+\.safetensors$")] = ""
    """The file beside it; set when it is saved, as is the next."""
    format: int = 0


def save_checkpoint(
    folder: Path, groups: dict[str, dict[str, Tensor]], state: TrainingState
) -> None:
    """Write a checkpoint; a kill at any moment leaves the previous one or this one whole.

    The tensors go to a file named after the step, then the JSON that names it is replaced: the
    JSON is the commit.

    Args:
        folder: of the training run.
        groups: named dicts of tensors, such as network, ema, optimizer.
        state: everything else.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    # The name of an earlier file is kept until the JSON no longer points at it.
    name = f"checkpoint-{state.step}.safetensors"
    write_bytes(folder / name, save(tensors))
    saved = msgspec.structs.replace(state, tensors=name, format=FORMAT_VERSION)
    write_json(folder / STATE, msgspec.to_builtins(saved))
    for other in folder.glob("checkpoint-*.safetensors"):
        if other.name != name:
            remove_file(other)


def load_state(folder: Path) -> TrainingState:
    """Read what a checkpoint holds beside its tensors. Raises ModelError as `load_checkpoint`."""
    path = folder / STATE
    try:
        state = msgspec.json.decode(path.read_bytes(), type=TrainingState)
    except FileNotFoundError as error:
        raise ModelError(f"no checkpoint in {folder}: {path.name} is missing") from error
    except OSError as error:
        raise ModelError(f"cannot read checkpoint {path}: {reason_of(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"damaged checkpoint {path}: {error}") from error
    if state.format != FORMAT_VERSION:
        raise ModelError(
            f"checkpoint {path} has format {state.format}; this version reads {FORMAT_VERSION}"
        )
    if not state.tensors:
        raise ModelError(f"damaged checkpoint {path}: it names no file of tensors")
    return state


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], TrainingState]:
    """Read a checkpoint written by `save_checkpoint`.

    Raises:
        ModelError: if there is none, it is damaged, or another version wrote it.
    """
    state = load_state(folder)
    path = folder / state.tensors
    try:
        tensors = load(path.read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        reason = reason_of(error)
        raise ModelError(f"damaged checkpoint {path}: {reason}") from error
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, _, key = name.partition("/")
        groups.setdefault(group, {})[key] = tensor
    return groups, state


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's state into named tensors."""
    flat: dict[str, Tensor] = {}
    for index, entry in optimizer.state_dict()["state"].items():
        for name, value in entry.items():
            if value is not None:
                flat[f"{index}.{name}"] = torch.as_tensor(value)
    return flat


def restore_optimizer(optimizer: torch.optim.Optimizer, flat: dict[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` took out."""
    content = optimizer.state_dict()
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    content["state"] = state
    optimizer.load_state_dict(content)
