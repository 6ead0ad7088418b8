"""What an ONNX graph may hold, checked before any runtime sees it.

A model file comes from anywhere. A graph is a list of operators; one with loops may run for ever,
one with generated constants may fill the memory, one with external data may read other files. Only
the operators below are taken, all of which do work in proportion to their input. The file is read
as Protocol Buffers (field numbers of onnx.proto), which needs no package.
"""

from __future__ import annotations

from collections.abc import Iterator

from segmitos.errors import ModelError

# What networks that map images to probabilities are made of.
_NAMES = """
Add AveragePool BatchNormalization Cast Clip Concat Constant Conv ConvTranspose
DequantizeLinear Div Dropout Elu Erf Exp Flatten Floor Gather Gelu Gemm GlobalAveragePool
GlobalMaxPool HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu
Log MatMul Max MaxPool Mean Min Mul Neg PRelu Pad Pow QuantizeLinear Reciprocal ReduceMax
ReduceMean ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid Slice Softmax Softplus Split
Sqrt Squeeze Sub Sum Tanh Transpose Unsqueeze Upsample
"""
OPERATORS = frozenset(_NAMES.split())
MAX_CONSTANTS_BYTES = 1_000_000_000
MAX_NODES = 20_000

# Field numbers of onnx.proto.
_MODEL_GRAPH, _MODEL_FUNCTIONS = 7, 25
_GRAPH_NODE, _GRAPH_CONSTANT, _GRAPH_SPARSE = 1, 5, 15
_NODE_OPERATOR, _NODE_ATTRIBUTE, _NODE_DOMAIN = 4, 5, 7
_ATTRIBUTE_TENSOR, _ATTRIBUTE_GRAPH, _ATTRIBUTE_TENSORS, _ATTRIBUTE_GRAPHS = 5, 6, 10, 11
_TENSOR_DIMENSION, _TENSOR_EXTERNAL, _TENSOR_LOCATION = 1, 13, 14
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# Bytes of the widest number in a tensor: complex128.
_WIDEST = 16


def check_graph(content: bytes, where: str) -> None:
    """Refuse a graph that may run for ever, fill the memory or read other files.

    Args:
        content: bytes of an ONNX file.
        where: what to call it in an error.

    Raises:
        ModelError: naming what is not allowed.
    """
    try:
        _check_model(memoryview(content), where)
    except (IndexError, ValueError) as error:
        raise ModelError(f"{where} is not an ONNX graph, or is damaged") from error


def _check_model(content: memoryview, where: str) -> None:
    graphs = 0
    for field, value in _fields(content):
        if field == _MODEL_FUNCTIONS:
            raise ModelError(f"{where}: the graph defines functions of its own; export it again")
        if field == _MODEL_GRAPH:
            graphs += 1
            _check_nodes(_message(value), where)
    if graphs != 1:
        raise ValueError("no Protocol Buffers message")


def _check_nodes(graph: memoryview, where: str) -> None:
    nodes = constants_bytes = 0
    for field, value in _fields(graph):
        if field == _GRAPH_SPARSE:
            raise ModelError(f"{where}: the graph holds sparse constants; export it again")
        if field == _GRAPH_CONSTANT:
            constants_bytes += _check_tensor(_message(value), where)
        if field == _GRAPH_NODE:
            nodes += 1
            constants_bytes += _check_node(_message(value), where)
    if nodes > MAX_NODES or constants_bytes > MAX_CONSTANTS_BYTES:
        raise ModelError(
            f"{where}: {nodes:,} operators with {constants_bytes:,} bytes of constants; at most "
            f"{MAX_NODES:,} and {MAX_CONSTANTS_BYTES:,} are taken"
        )


def _check_node(node: memoryview, where: str) -> int:
    """Check one operator; return the bytes of its constants."""
    operator, domain, constants_bytes = "", "", 0
    attributes = []
    for field, value in _fields(node):
        if field == _NODE_OPERATOR:
            operator = str(_message(value), "utf-8")
        if field == _NODE_DOMAIN:
            domain = str(_message(value), "utf-8")
        if field == _NODE_ATTRIBUTE:
            attributes.append(_message(value))
    if operator not in OPERATORS or domain not in ("", "ai.onnx"):
        name = f"{domain}.{operator}" if domain else operator
        raise ModelError(
            f"{where}: operator {name[:60]!r} is not taken; a graph holds no loops, conditions or "
            "generated constants"
        )
    for attribute in attributes:
        for field, value in _fields(attribute):
            if field in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS):
                raise ModelError(f"{where}: operator {operator!r} holds a graph; export it again")
            if field in (_ATTRIBUTE_TENSOR, _ATTRIBUTE_TENSORS):
                constants_bytes += _check_tensor(_message(value), where)
    return constants_bytes


def _check_tensor(tensor: memoryview, where: str) -> int:
    """Check a constant; return its bytes, at least those that its shape needs."""
    elements = 1
    for field, value in _fields(tensor):
        if field == _TENSOR_EXTERNAL or (field == _TENSOR_LOCATION and value):
            raise ModelError(f"{where}: the graph has data in another file; export it again")
        if field == _TENSOR_DIMENSION:
            for size in _integers(value):
                elements *= size
    # A shape may promise more than is there; four bits are the narrowest numbers.
    if elements > 2 * len(tensor) + _WIDEST:
        raise ModelError(f"{where}: a constant of {elements:,} numbers in {len(tensor):,} bytes")
    return len(tensor)


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield (field number, value) of a message: an integer, or bytes."""
    at = 0
    while at < len(content):
        key, at = _varint(content, at)
        field, kind = key >> 3, key & 7
        if kind == _VARINT:
            number, at = _varint(content, at)
            yield field, number
            continue
        if kind == _BYTES:
            length, at = _varint(content, at)
        elif kind in (_FIXED64, _FIXED32):
            length = 8 if kind == _FIXED64 else 4
        else:
            raise ValueError("no Protocol Buffers message")
        if at + length > len(content):
            raise ValueError("no Protocol Buffers message")
        yield field, content[at : at + length]
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    result = shift = 0
    while shift < 70:
        byte = content[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7
    raise ValueError("no Protocol Buffers message")


def _integers(value: int | memoryview) -> Iterator[int]:
    """Yield the numbers of a repeated field, packed or not."""
    if isinstance(value, int):
        yield value
        return
    at = 0
    while at < len(value):
        number, at = _varint(value, at)
        yield number


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("no Protocol Buffers message")
    return value
