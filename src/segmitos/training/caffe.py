"""Reads a .caffemodel with the protobuf runtime and a schema of four messages, no compiler.

Field numbers are those of Caffe's `caffe.proto`. Only what holds weights is described; the runtime
skips the rest as unknown fields.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.errors import ModelError

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
            "pip install 'segmitos[train]'"
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
