"""Initial weights: VGG-16 of torchvision, the published Caffe FCN-32s, or an earlier run.

A source is written `KIND:WHERE`, WHERE a file or an http(s) address, which is fetched once:

- `vgg16:` torchvision's names, .safetensors or .pth; fc6 and fc7 are its classifier, reshaped;
- `caffe:` `fcn32s-heavy-pascal.caffemodel`, the start of the paper's own training;
- `run:` a folder that `train` left, of the same network or of an earlier stage.

Nothing is unpickled: a .pth is read with `weights_only`, a .caffemodel by `training.caffe`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from segmitos.errors import ModelError, UsageError
from segmitos.io.files import write_bytes
from segmitos.training.caffe import read_caffemodel
from segmitos.training.checkpoint import load_checkpoint
from segmitos.training.networks.fcn import FCN, IMAGE_MEAN, IMAGE_STD

# What Caffe's VGG-16 was trained with: means on 0..255, no division; in RGB.
_CAFFE_MEAN = (122.67891434, 116.66876762, 104.00698793)
# Layers of `features` that are convolutions, by Caffe's name.
_CAFFE_NAMES = {
    "conv1_1": 0,
    "conv1_2": 2,
    "conv2_1": 5,
    "conv2_2": 7,
    "conv3_1": 10,
    "conv3_2": 12,
    "conv3_3": 14,
    "conv4_1": 17,
    "conv4_2": 19,
    "conv4_3": 21,
    "conv5_1": 24,
    "conv5_2": 26,
    "conv5_3": 28,
}
# Tensors that only a later stage of the FCN has; absent, they keep their start at zero.
_STAGE_PREFIXES = ("score_pool4.", "score_pool3.", "upscore16.", "upscore8.")
_TIMEOUT_S = 60


def load_weights(network: nn.Module, source: str) -> None:
    """Fill a network from a source `KIND:WHERE`.

    Raises:
        UsageError: for a source of another form, or a kind that the network cannot take.
        ModelError: for a file that is missing, damaged or does not fit.
    """
    kind, _, where = source.partition(":")
    if kind not in _LOADERS or not where:
        raise UsageError(
            f"weights {source!r}: write vgg16:FILE, caffe:FILE or run:FOLDER (a file or a URL)"
        )
    if kind == "run":
        load_run(network, Path(where))
        return
    if not isinstance(network, FCN):
        raise UsageError(f"weights {source!r} are for fcn32s, fcn16s and fcn8s alone")
    _LOADERS[kind](network, located(where))


def load_run(network: nn.Module, folder: Path) -> None:
    """Fill a network with the averaged weights of a run, of its own stage or of an earlier one.

    Raises:
        ModelError: if the run is of another network; naming the first tensor that does not fit.
    """
    groups, _ = load_checkpoint(folder)
    _fill(network, groups["ema"], str(folder), optional=_STAGE_PREFIXES)


def located(where: str, cache: Path | None = None) -> Path:
    """Return the file itself; an address is fetched to a cache first.

    A name that ends in `-` and eight hexadecimal digits, as torchvision's do, is checked against
    the SHA-256 of what came.

    Raises:
        ModelError: if it cannot be fetched, or is not what its name says.
    """
    if not where.startswith(("http://", "https://")):
        return Path(where)
    folder = cache or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "segmitos"
    path = folder / where.rsplit("/", 1)[-1]
    if path.is_file():
        return path
    try:
        with urllib.request.urlopen(where, timeout=_TIMEOUT_S) as answer:
            content = answer.read()
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ModelError(
            f"cannot fetch weights {where}: {error}; fetch the file by other means and name it"
        ) from error
    digest = re.search(r"-([0-9a-f]{8})\.\w+$", path.name)
    if digest and not hashlib.sha256(content).hexdigest().startswith(digest[1]):
        raise ModelError(f"weights {where} are damaged: their SHA-256 does not begin {digest[1]}")
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(path, content)
    return path


def load_vgg16(network: FCN, path: Path) -> None:
    """Fill `features`, fc6 and fc7 from torchvision's VGG-16; predictions stay as they are.

    Raises:
        ModelError: if the file is missing, damaged, or lacks a tensor.
    """
    tensors = _read_tensors(path)
    wanted = {f"features.{index}" for index in _CAFFE_NAMES.values()}
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
    _set_scale(network, IMAGE_MEAN, IMAGE_STD)


def load_caffe(network: FCN, path: Path) -> None:
    """Fill a network from the published FCN-32s, as Caffe wrote it.

    Its first layer takes BGR and is turned round. Its prediction of PASCAL's 21 classes gives way
    to a new one, as in the paper: the layer fc7 and all below are kept, the prediction starts at
    zero.

    Raises:
        ModelError: if the file is missing, damaged, or lacks a layer.
    """
    layers = read_caffemodel(path)
    found: dict[str, Tensor] = {}
    names = {caffe: f"features.{index}" for caffe, index in _CAFFE_NAMES.items()}
    for theirs, layer in {**names, "fc6": "fc6", "fc7": "fc7"}.items():
        if theirs not in layers or len(layers[theirs]) < 2:
            raise ModelError(f"{path} lacks layer {theirs} with weight and bias")
        weight, bias = (torch.from_numpy(blob.copy()) for blob in layers[theirs][:2])
        own = network.get_submodule(layer)
        assert isinstance(own, nn.Conv2d) and own.bias is not None
        weight = _reshaped(weight, own.weight, theirs, path)
        found[f"{layer}.weight"] = weight.flip(1) if theirs == "conv1_1" else weight
        found[f"{layer}.bias"] = bias.reshape(-1)
    _fill(network, found, str(path), optional=("score", "upscore", "mean", "std"))
    _set_scale(network, _CAFFE_MEAN, (1.0, 1.0, 1.0))


_LOADERS: dict[str, Callable[[FCN, Path], None]] = {
    "vgg16": load_vgg16,
    "caffe": load_caffe,
    "run": load_run,
}


def _set_scale(
    network: FCN, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> None:
    network.mean.copy_(torch.tensor(mean).view(1, 3, 1, 1))
    network.std.copy_(torch.tensor(std).view(1, 3, 1, 1))


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load(path.read_bytes())
        # weights_only: tensors alone are read, no code in the file can run.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror or error}") from error
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
