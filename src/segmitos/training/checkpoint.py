"""Training checkpoints: safetensors for tensors, JSON for the rest; nothing is ever unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from segmitos.errors import ModelError
from segmitos.io.files import write_bytes, write_json

FORMAT_VERSION = 1


def save_checkpoint(
    folder: Path, groups: dict[str, dict[str, Tensor]], state: dict[str, Any]
) -> None:
    """Write a checkpoint; a kill at any moment leaves the previous one or this one whole.

    The tensors go to a file named after the step, then the JSON that names it is replaced: the
    JSON is the commit.

    Args:
        folder: of the training run.
        groups: named dicts of tensors, such as network, ema, optimizer.
        state: JSON-able; holds `step`.
    """
    tensors = {
        f"{group}/{name}": tensor.detach().cpu().contiguous()
        for group, members in groups.items()
        for name, tensor in members.items()
    }
    # The name of an earlier file is kept until the JSON no longer points at it.
    name = f"checkpoint-{state['step']}.safetensors"
    write_bytes(folder / name, save(tensors))
    write_json(folder / "checkpoint.json", {**state, "tensors": name, "format": FORMAT_VERSION})
    for other in folder.glob("checkpoint-*.safetensors"):
        if other.name != name:
            other.unlink(missing_ok=True)


def load_checkpoint(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read a checkpoint written by `save_checkpoint`.

    Raises:
        ModelError: if there is none, or it is damaged.
    """
    path = folder / "checkpoint.json"
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        tensors = load((folder / state["tensors"]).read_bytes())
    except FileNotFoundError as error:
        raise ModelError(f"no checkpoint in {folder}: {error.filename} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"damaged checkpoint {path}: {error}") from error
    if state.get("format") != FORMAT_VERSION:
        raise ModelError(
            f"checkpoint {path} has format {state.get('format')}; this version reads "
            f"{FORMAT_VERSION}"
        )
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
