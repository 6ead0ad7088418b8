"""Rewrites an exported network so that its first layers run once on the whole image.

Networks are exported to run them on the upper and the lower half of an image one after the other
(`LiteNetwork.halves`), which takes less memory on whole fields. In the patches of a cascade the
overlap of the halves costs a tenth of the time or more, and memory is no concern.
"""

from __future__ import annotations

from typing import Any


def without_halves(graph: bytes) -> bytes:
    """Return the graph that runs the first layers on the whole image.

    In integers the upper half's ranges of activations are those of the whole.

    Args:
        graph: an ONNX file; returned as it is where nothing is done in halves.
    """
    import onnx

    model = onnx.load_from_string(graph)
    nodes = model.graph.node
    made = {name: node for node in nodes for name in node.output}
    constants = _constants(model.graph)
    is_whole = False
    for joined in nodes:
        parts: list[Any] = [made.get(name) for name in joined.input]
        if not _joins_rows(joined) or not all(_cuts_rows(part, constants) for part in parts):
            continue
        cuts: list[Any] = [_nearest_slice(part.input[0], made) for part in parts]
        if not all(_cuts_rows(cut, constants) for cut in cuts) or cuts[0] is cuts[1]:
            continue
        if not _same(cuts[0].input[0], cuts[1].input[0], made):
            continue
        renamed = {cuts[0].output[0]: cuts[0].input[0], joined.output[0]: parts[0].input[0]}
        for node in nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
        is_whole = True
    if not is_whole:
        return graph
    _drop_unused(model.graph)
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString()
    return result


def _constants(graph: Any) -> dict[str, list[int]]:
    """Return what the whole numbers among a graph's constants are."""
    from onnx import TensorProto, numpy_helper

    tensors = {one.name: one for one in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
    return {
        name: numpy_helper.to_array(tensor).reshape(-1).tolist()
        for name, tensor in tensors.items()
        if tensor.data_type == TensorProto.INT64
    }


def _same(one: str, other: str, made: dict[str, Any]) -> bool:
    """Tell whether two tensors are one, or are made of the same by the same operation."""
    if one == other:
        return True
    nodes: list[Any] = [made.get(name) for name in (one, other)]
    if None in nodes:
        return False
    keys = [(node.op_type, list(node.input), list(node.attribute)) for node in nodes]
    return bool(keys[0] == keys[1])


def _cuts_rows(node: Any, constants: dict[str, list[int]]) -> bool:
    """Tell whether a node cuts a tensor (n, c, h, w) by its rows."""
    if node is None or node.op_type != "Slice" or len(node.input) < 4:
        return False
    return constants.get(node.input[3]) in ([2], [-2])


def _joins_rows(node: Any) -> bool:
    """Tell whether a node puts two tensors (n, c, h, w) below each other."""
    return (
        node.op_type == "Concat"
        and len(node.input) == 2
        and any(one.name == "axis" and one.i in (2, -2) for one in node.attribute)
    )


def _nearest_slice(name: str, made: dict[str, Any]) -> Any:
    """Return the node that cuts what a tensor is made of; None where none does."""
    names, seen = [name], set()
    while names:
        node = made.get(names.pop(0))
        if node is None or node.output[0] in seen:
            continue
        if node.op_type == "Slice":
            return node
        seen.add(node.output[0])
        names += node.input
    return None


def _drop_unused(graph: Any) -> None:
    """Remove nodes and constants that no output needs."""
    needed = {output.name for output in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    constants = [constant for constant in graph.initializer if constant.name in needed]
    del graph.node[:]
    graph.node.extend(reversed(kept))
    del graph.initializer[:]
    graph.initializer.extend(constants)
