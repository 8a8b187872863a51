"""The network that is timed: of the default configuration, with weights as they are drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import torch

from citybrain_models.onnx_forecaster import open_session
from citybrain_training.export import example_inputs, export_onnx
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.quantization import to_int8
from citybrain_training.speed.cities import prepared

SCALED_BY = 16
"""Windows that the scales of eight-bit integers are fixed by."""


def exported(seed: int = 0) -> tuple[bytes, bytes, dict[str, Any], Counter[str]]:
    """ONNX bytes in float32 and in int8; weights by name (``network``, a state, and the grid's ``embedding
    [node, …]``); operators of the graph in float32, counted."""
    torch.manual_seed(seed)
    preparation = prepared()
    module = ForecastModule(build_network(preparation), preparation)
    model = export_onnx(module.network, example_inputs(module, preparation))
    examples = {name: tensor.numpy() for name, tensor in example_inputs(module, preparation, SCALED_BY).items()}
    read = {node.name for node in open_session(model).get_inputs()}
    rounded = to_int8(model, [{name: array for name, array in examples.items() if name in read}])
    weights = {"network": module.network.state_dict(), "embedding": module.embeddings["road"].detach().numpy()}
    return model, rounded, weights, Counter(node.op_type for node in onnx.load_from_string(model).graph.node)
