"""Initial weights: VGG-16 of torchvision, the published FCN-32s, or an earlier run.

A source is written `KIND:WHERE`:

- `vgg16:FILE`, torchvision's names, .safetensors or .pth; fc6 and fc7 are its classifier, reshaped;
- `fcn32s:FILE`, `fcn32s-heavy-pascal.safetensors`, the start of the paper's own training;
  `python -m experiments.convert_caffe` makes it of the published .caffemodel;
- `run:FOLDER` that `train` left, of the same network or of an earlier stage.

Nothing is unpickled: a .pth is read with `weights_only`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from segmitos.errors import ModelError, UsageError
from segmitos.io.text import reason_of
from segmitos.training.checkpoint import load_checkpoint
from segmitos.training.networks.fcn import FCN, IMAGE_MEAN, IMAGE_STD

# Convolutions in torchvision's `features`.
_CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
# Tensors that only a later stage of the FCN has; absent, they keep their start at zero.
_STAGE_PREFIXES = ("score_pool4.", "score_pool3.", "upscore16.", "upscore8.")


def load_weights(network: nn.Module, source: str) -> None:
    """Fill a network from a source `KIND:WHERE`.

    Raises:
        UsageError: for a source of another form, or a kind that the network cannot take.
        ModelError: for a file that is missing, damaged or does not fit.
    """
    kind, _, where = source.partition(":")
    if kind == "run" and where:
        load_run(network, Path(where))
        return
    if kind not in _FCN_LOADERS or not where:
        raise UsageError(f"weights {source!r}: write vgg16:FILE, fcn32s:FILE or run:FOLDER")
    if not isinstance(network, FCN):
        raise UsageError(f"weights {source!r} are for fcn32s, fcn16s and fcn8s alone")
    _FCN_LOADERS[kind](network, Path(where))


def run_of_weights(source: str) -> Path | None:
    """Return the folder of a source `run:FOLDER`, None for any other."""
    kind, _, where = source.partition(":")
    return Path(where) if kind == "run" and where else None


def load_run(network: nn.Module, folder: Path) -> None:
    """Fill a network with the averaged weights of a run, of its own stage or of an earlier one.

    Raises:
        ModelError: if the run is of another network; naming the first tensor that does not fit.
    """
    groups, _ = load_checkpoint(folder)
    _fill(network, groups["ema"], str(folder), optional=_STAGE_PREFIXES)


def load_vgg16(network: FCN, path: Path) -> None:
    """Fill `features`, fc6 and fc7 from torchvision's VGG-16; predictions stay as they are.

    Raises:
        ModelError: if the file is missing, damaged, or lacks a tensor.
    """
    tensors = _read_tensors(path)
    wanted = [f"features.{index}" for index in _CONVOLUTIONS]
    found = {
        f"{layer}.{part}": _taken(tensors, f"{layer}.{part}", path)
        for layer in wanted
        for part in ("weight", "bias")
    }
    for layer, theirs in (("fc6", "classifier.0"), ("fc7", "classifier.3")):
        own: nn.Conv2d = getattr(network, layer)
        weight = _taken(tensors, f"{theirs}.weight", path)
        found[f"{layer}.weight"] = _reshaped(weight, own.weight, f"{theirs}.weight", path)
        found[f"{layer}.bias"] = _taken(tensors, f"{theirs}.bias", path)
    _fill(network, found, str(path), optional=("score", "upscore", "mean", "std"))
    network.mean.copy_(torch.tensor(IMAGE_MEAN).view(1, 3, 1, 1))
    network.std.copy_(torch.tensor(IMAGE_STD).view(1, 3, 1, 1))


def load_fcn32s(network: FCN, path: Path) -> None:
    """Fill all but the predictions, which start at zero, from a converted FCN-32s.

    Raises:
        ModelError: if the file is missing, damaged, or lacks a tensor.
    """
    _fill(network, _read_tensors(path), str(path), optional=("score", "upscore"))


_FCN_LOADERS: dict[str, Callable[[FCN, Path], None]] = {
    "vgg16": load_vgg16,
    "fcn32s": load_fcn32s,
}


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())
        # weights_only: tensors alone are read, no code in the file can run.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {reason_of(error)}") from error
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"weights {path} are damaged or no file of tensors: {reason}") from error
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise ModelError(f"weights {path} hold no dict of tensors")
    return content


def _taken(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    if name not in tensors:
        raise ModelError(f"weights {path} lack {name}; torchvision's VGG-16 has it")
    return tensors[name]


def _reshaped(weight: Tensor, own: Tensor, name: str, path: Path) -> Tensor:
    """Give a fully connected weight the shape of the convolution: both count (channel, y, x)."""
    if weight.numel() != own.numel():
        raise ModelError(
            f"weights {path}: {name} has shape {tuple(weight.shape)}, which does not make "
            f"{tuple(own.shape)}"
        )
    return weight.reshape(own.shape)


def _fill(
    network: nn.Module, tensors: Mapping[str, Tensor], where: str, optional: tuple[str, ...]
) -> None:
    own = network.state_dict()
    for name, tensor in sorted(tensors.items()):
        if name not in own:
            raise ModelError(f"{where} holds {name}, which this network does not have")
        if own[name].shape != tensor.shape:
            raise ModelError(
                f"{where}: {name} has shape {tuple(tensor.shape)}, this network wants "
                f"{tuple(own[name].shape)}"
            )
    absent = [n for n in own if n not in tensors and not n.startswith(optional)]
    if absent:
        raise ModelError(f"{where} lacks {len(absent)} tensors, the first {absent[0]}")
    network.load_state_dict(dict(tensors), strict=False)
