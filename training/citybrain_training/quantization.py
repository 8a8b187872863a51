"""Eight-bit integers in place of floats in the matrices where most of a forecast's time goes.

Rounded are the products inside the blocks, of what a layer normalisation bounds and a weight of the network. What is
measured enters as floats, so that a value never seen before is not cut off, and so do the layers that the answer is
read from. The scale of each product is fixed beforehand on given windows: the answer for a window hangs neither on the
others of its batch nor on the past, and can be had again.

The weights keep seven bits: the sums of eight would overflow on processors without VNNI instructions.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from citybrain_training.onnx_file import serialized

LEAST_SIDE = 32
"""Rows and columns of the smallest matrix that is rounded: below, rounding costs what it spares."""

ROUNDED = ("Gemm", "MatMul")
MEASURED = ("x_", "anchor")
"""Beginnings of the names of inputs that hold what was measured."""


def to_int8(model: bytes, examples: Iterable[Mapping[str, np.ndarray]]) -> bytes:
    """``model`` as exported, with its inner products in eight-bit integers, as standard operators (QDQ).

    ``examples`` are inputs to fix the scales by. The answer differs by a rounding error; how much it costs is for the
    caller to measure. A network without a product large enough comes back as it is.
    """
    with tempfile.TemporaryDirectory() as folder, _quiet():
        plain, rounded = Path(folder) / "plain.onnx", Path(folder) / "rounded.onnx"
        folded = _folded(model, plain)
        large = _chosen(folded.graph)
        if not large:
            return model
        chosen = _products_apart(folded.graph, large)
        onnx.save(folded, plain)
        quantize_static(
            plain,
            rounded,
            _Examples(examples),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(ROUNDED),
            nodes_to_quantize=sorted(chosen),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            extra_options={"OpTypesToExcludeOutputQuantization": list(ROUNDED), "WeightSymmetric": True},
        )
        found = onnx.load(rounded)
    _keep_others_exact(found.graph, chosen)
    return serialized(found)


class _Examples(CalibrationDataReader):
    def __init__(self, examples: Iterable[Mapping[str, np.ndarray]]):
        self.examples = iter(examples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self.examples, None)
        return None if found is None else dict(found)


def _folded(model: bytes, target: Path) -> onnx.ModelProto:
    """``model`` with everything that follows from its weights alone computed."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    folded = onnx.load(target)
    del folded.graph.value_info[:]  # of the graph before it was folded
    return folded


def _products_apart(graph: onnx.GraphProto, chosen: Collection[str]) -> set[str]:
    """Makes two operators of each chosen product and what is added to it, where that is no bias of the network: only
    such a sum stays one when it is rounded. Returns the names of the products."""
    weights = {tensor.name for tensor in graph.initializer}
    nodes, products = [], set()
    for node in graph.node:
        if node.name not in chosen or len(node.input) < 3 or node.input[2] in weights or not _plain(node):
            products |= {node.name} & set(chosen)
            nodes.append(node)
            continue
        product = f"{node.name}_product"
        products.add(product)
        nodes.append(onnx.helper.make_node("MatMul", node.input[:2], [f"{product}_out"], name=product))
        nodes.append(onnx.helper.make_node("Add", [f"{product}_out", node.input[2]], node.output, name=node.name))
    del graph.node[:]
    graph.node.extend(nodes)
    return products


def _plain(node: onnx.NodeProto) -> bool:
    """Whether a Gemm multiplies and adds, and does nothing else."""
    usual = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return all(onnx.helper.get_attribute_value(a) == usual[a.name] for a in node.attribute)


def _chosen(graph: onnx.GraphProto) -> set[str]:
    """Names of the products that are rounded: of the rows of all places with large matrices, of what is bounded, and
    followed by another such product."""
    sides = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    entering = [i.name for i in graph.input if i.name.startswith(MEASURED)]
    measured = _reached(graph.node, entering)
    unbounded = _reached(graph.node, entering, stop=("LayerNormalization",))
    found = [
        node
        for node in graph.node
        if node.op_type == "Gemm"
        and min(sides.get(node.input[1], [0])) >= LEAST_SIDE
        and node.input[0] in measured - unbounded
    ]
    read = {node.input[0] for node in found}
    return {node.name for node in found if not read.isdisjoint(_reached(graph.node, node.output))}


def _reached(nodes: Sequence[onnx.NodeProto], begin: Iterable[str], stop: Collection[str] = ()) -> set[str]:
    """Tensors that follow from some of ``begin``, but not through operators of the types ``stop``."""
    found = set(begin)
    for node in nodes:  # in order of computation
        if node.op_type not in stop and not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _keep_others_exact(graph: onnx.GraphProto, chosen: Collection[str]) -> None:
    """Lets all but the chosen read what was, not what was rounded for those."""
    made = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        if node.name in chosen or node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        for place, name in enumerate(node.input):
            restored = made.get(name)
            if restored is not None and restored.op_type == "DequantizeLinear" and restored.input[0] in made:
                node.input[place] = made[restored.input[0]].input[0]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What the tools tell of their own workings is nobody else's business."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
