"""Converts the published FCN-32s of PASCAL VOC, where the paper starts, to safetensors.

    python -m experiments.convert_caffe fcn32s-heavy-pascal.caffemodel

writes fcn32s-heavy-pascal.safetensors beside it, for `weights = "fcn32s:FILE"` in a recipe. The
first layer takes BGR and is turned round. The prediction of PASCAL's 21 classes is left out.

The .caffemodel is read with the protobuf runtime and a schema of four messages, no compiler. Field
numbers are those of Caffe's `caffe.proto`. Only what holds weights is described; the runtime skips
the rest as unknown fields.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from segmitos.console import run_program
from segmitos.errors import ModelError
from segmitos.io.files import write_bytes

# Its means on 0..255, in RGB; it does not divide.
IMAGE_MEAN = (122.67891434, 116.66876762, 104.00698793)
# Layers by Caffe's name and ours.
LAYERS = {
    "conv1_1": "features.0",
    "conv1_2": "features.2",
    "conv2_1": "features.5",
    "conv2_2": "features.7",
    "conv3_1": "features.10",
    "conv3_2": "features.12",
    "conv3_3": "features.14",
    "conv4_1": "features.17",
    "conv4_2": "features.19",
    "conv4_3": "features.21",
    "conv5_1": "features.24",
    "conv5_2": "features.26",
    "conv5_3": "features.28",
    "fc6": "fc6",
    "fc7": "fc7",
}
_PACKAGE = "segmitos_caffe"
# message -> (field, number, type, repeated, packed); a type that is a message is given by name.
_SCHEMA: dict[str, tuple[tuple[str, int, str, bool, bool], ...]] = {
    "BlobShape": (("dim", 1, "int64", True, True),),
    "BlobProto": (
        ("num", 1, "int32", False, False),
        ("channels", 2, "int32", False, False),
        ("height", 3, "int32", False, False),
        ("width", 4, "int32", False, False),
        ("data", 5, "float", True, True),
        ("shape", 7, "BlobShape", False, False),
    ),
    # `layers` (V1) of the old format holds its name in 4 and blobs in 6; `layer` in 1 and 7.
    "V1LayerParameter": (
        ("name", 4, "string", False, False),
        ("blobs", 6, "BlobProto", True, False),
    ),
    "LayerParameter": (("name", 1, "string", False, False), ("blobs", 7, "BlobProto", True, False)),
    "NetParameter": (
        ("name", 1, "string", False, False),
        ("layers", 2, "V1LayerParameter", True, False),
        ("layer", 100, "LayerParameter", True, False),
    ),
}


@cache
def net_parameter() -> Any:
    """Return the message class of a whole net.

    Raises:
        ModelError: if the protobuf runtime is not installed.
    """
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise ModelError(
            "a .caffemodel is read with the package protobuf, which is not installed: "
            "pip install protobuf"
        ) from error
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(
        name="segmitos_caffe.proto", package=_PACKAGE, syntax="proto2"
    )
    for message, fields in _SCHEMA.items():
        described = file.message_type.add(name=message)
        for name, number, kind, repeated, packed in fields:
            field = described.field.add(name=name, number=number)
            field.label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            if kind in _SCHEMA:
                field.type = kinds.TYPE_MESSAGE
                field.type_name = f".{_PACKAGE}.{kind}"
            else:
                field.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if packed:
                field.options.packed = True
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.NetParameter"))


def read_caffemodel(path: Path) -> dict[str, list[NDArray[np.float32]]]:
    """Return the weights of each layer that has some, by the layer's name, in Caffe's order.

    Raises:
        ModelError: if the file cannot be read, is no Caffe net, or a shape does not hold its data.
    """
    kind = net_parameter()
    from google.protobuf.message import DecodeError

    net = kind()
    try:
        net.ParseFromString(path.read_bytes())
    except OSError as error:
        raise ModelError(f"cannot read weights {path}: {error.strerror}") from error
    except DecodeError as error:
        raise ModelError(f"{path} is no .caffemodel, or damaged: {error}") from error
    layers = {
        layer.name: [_array(blob, layer.name, path) for blob in layer.blobs]
        for layer in (*net.layers, *net.layer)
        if layer.blobs
    }
    if not layers:
        raise ModelError(f"{path} holds no layer with weights; is it a .caffemodel?")
    return layers


def _array(blob: Any, layer: str, path: Path) -> NDArray[np.float32]:
    shape = tuple(blob.shape.dim) or (blob.num, blob.channels, blob.height, blob.width)
    data = np.fromiter(blob.data, np.float32, len(blob.data))
    if int(np.prod(shape)) != data.size or min(shape) < 1:
        raise ModelError(
            f"{path}, layer {layer}: {data.size} numbers do not fill the shape {shape}"
        )
    return data.reshape(shape)


def convert(path: Path) -> Path:
    """Write the weights of a .caffemodel as safetensors beside it, in the names of our FCN.

    Raises:
        ModelError: if the file is missing, damaged, or lacks a layer.
    """
    layers = read_caffemodel(path)
    found: dict[str, np.ndarray] = {
        "mean": np.array(IMAGE_MEAN, np.float32).reshape(1, 3, 1, 1),
        "std": np.ones((1, 3, 1, 1), np.float32),
    }
    for theirs, ours in LAYERS.items():
        if len(layers.get(theirs, ())) < 2:
            raise ModelError(f"{path} lacks layer {theirs} with weight and bias")
        weight: np.ndarray = layers[theirs][0]
        bias = layers[theirs][1]
        # Fully connected weights are written as rows; both count (channel, y, x).
        if theirs == "fc6":
            weight = weight.reshape(len(weight), -1, 7, 7)
        elif theirs == "fc7":
            weight = weight.reshape(len(weight), -1, 1, 1)
        elif theirs == "conv1_1":
            weight = np.ascontiguousarray(weight[:, ::-1])
        found[f"{ours}.weight"], found[f"{ours}.bias"] = weight, bias.reshape(-1)
    out = path.with_suffix(".safetensors")
    write_bytes(out, save(found))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("caffemodel", type=Path)
    print(convert(parser.parse_args().caffemodel))


if __name__ == "__main__":
    run_program(main, "experiments.convert_caffe")
