"""Takes out of a graph that it brings the two halves of an image to stride 4 one after the other.

Exported networks do (`LiteNetwork.halves`), to see whole fields in less memory. In the patches of a
cascade the overlap of the halves costs a tenth of the time or more, and memory is no concern.
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
    for joined in nodes:
        if joined.op_type != "Concat" or len(joined.input) != 2:
            continue
        parts: list[Any] = [made.get(name) for name in joined.input]
        if any(part is None or part.op_type != "Slice" for part in parts):
            continue
        upper = parts[0].input[0]
        cut = _nearest_slice(upper, made)
        if cut is None:
            continue
        renamed = {cut.output[0]: cut.input[0], joined.output[0]: upper}
        for node in nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
    _drop_unused(model.graph)
    onnx.checker.check_model(model)
    result: bytes = model.SerializeToString()
    return result


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
