"""The last layers of a model file's verifiers: their inputs, and a change of their weights.

A model file holds graphs whose normalizations are folded into the weights. Their last layer is the
one that can be fitted to few marks, and it stands in the graph as it was trained: one `Gemm` with
one output for each verifier of the mean.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from segmitos.detection.runtimes import import_onnxruntime
from segmitos.errors import ModelError

_BATCH = 32
# The graph's probability and what its last layers give may differ by this much in log-odds.
_TOLERANCE = 1e-2


class VerifierHead:
    """The last layers of all verifiers of a graph, as one.

    The graph's log-odds are `features(patches) @ weights + bias`, the mean over its verifiers.

    Attributes:
        weights: (d,) float64, those of each verifier one after the other, over their number.
        bias: of the mean.
        count: of verifiers.
    """

    def __init__(self, graph: bytes, where: str) -> None:
        """Find the last layers of a graph.

        Raises:
            ModelError: for a graph without such layers.
        """
        import onnx

        self._where = where
        self._model = onnx.load_from_string(graph)
        self._constants = {entry.name: entry for entry in self._model.graph.initializer}
        self._made = {name: node for node in self._model.graph.node for name in node.output}
        self._layers = [node for node in self._model.graph.node if self._is_head(node)]
        if not self._layers:
            raise ModelError(
                f"{where}: its verifier has no last layer in floating point, and so cannot be "
                "adapted; start from the file before it was quantized"
            )
        self.count = len(self._layers)
        self.weights = np.concatenate([self._weight(node) for node in self._layers]) / self.count
        self.bias = float(np.mean([self._value(node.input[2])[0] for node in self._layers]))

    def features(self, patches: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return what goes into the last layers (n, d) for patches (n, side, side, 3).

        Raises:
            ModelError: where the last layers do not make the graph's probability.
        """
        import onnx
        from onnx import TensorProto, helper

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        inputs = [node.input[0] for node in self._layers]
        output = self._unused("features")
        shape = [None, len(self.weights)]
        model.graph.node.append(helper.make_node("Concat", inputs, [output], axis=1))
        model.graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        runtime = import_onnxruntime()
        session = runtime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        name = session.get_inputs()[0].name
        found = [np.zeros((0, len(self.weights)))]
        for begin in range(0, len(patches), _BATCH):
            probability, some = session.run(None, {name: patches[begin : begin + _BATCH]})
            found.append(np.asarray(some, np.float64))
            self._check(np.asarray(probability, np.float64), found[-1])
        return np.concatenate(found)

    def changed(self, change: NDArray[np.float64]) -> bytes:
        """Return the graph with a change (d,) added to `weights`."""
        import onnx
        from onnx import numpy_helper

        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        graph = model.graph
        layers = [node for node in graph.node if self._is_head(node)]
        parts = np.split(change * self.count, self.count)
        for number, (node, part) in enumerate(zip(layers, parts, strict=True), start=1):
            old = self._value(node.input[1])
            weight = (self._weight(node) + part).astype(np.float32).reshape(old.shape)
            name = self._unused(f"adapted{number}")
            graph.initializer.append(numpy_helper.from_array(weight, name))
            node.input[1] = name
        used = {name for node in graph.node for name in node.input}
        for node in [n for n in graph.node if n.op_type == "Cast" and n.output[0] not in used]:
            if node.output[0] not in {output.name for output in graph.output}:
                graph.node.remove(node)
        used = {name for node in graph.node for name in node.input}
        for entry in [entry for entry in graph.initializer if entry.name not in used]:
            graph.initializer.remove(entry)
        content: bytes = model.SerializeToString()
        return content

    def _unused(self, name: str) -> str:
        """Return a name that nothing in the graph has."""
        while name in self._constants or name in self._made:
            name += "_"
        return name

    def _is_head(self, node: Any) -> bool:
        if node.op_type != "Gemm" or len(node.input) != 3:
            return False
        values = [self._value(name) for name in node.input[1:]]
        plain = all(a.name not in ("alpha", "beta") or a.f == 1.0 for a in node.attribute)
        return plain and all(value.size for value in values) and values[1].size == 1

    def _value(self, name: str) -> NDArray[np.float64]:
        """Return a constant in floating point, stored so or cast to it; else nothing."""
        from onnx import numpy_helper

        node = self._made.get(name)
        if node is not None and node.op_type == "Cast":
            name = node.input[0]
        if name not in self._constants:
            return np.zeros(0)
        value = numpy_helper.to_array(self._constants[name])
        return value.astype(np.float64) if value.dtype.kind == "f" else np.zeros(0)

    def _weight(self, node: Any) -> NDArray[np.float64]:
        return self._value(node.input[1]).ravel()

    def _check(self, probability: NDArray[np.float64], features: NDArray[np.float64]) -> None:
        logit = features @ self.weights + self.bias
        # Where a probability is nearly 0 or 1, its float32 no longer tells the log-odds.
        sure = np.abs(logit) > 12
        clipped = np.clip(probability.ravel(), 1e-9, 1 - 1e-9)
        if not (sure | (np.abs(np.log(clipped / (1 - clipped)) - logit) < _TOLERANCE)).all():
            raise ModelError(
                f"{self._where}: its verifier is of another kind than those that can be adapted"
            )
