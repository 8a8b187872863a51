"""The network that is timed: of the default configuration, with weights as they are drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import onnx
import torch

from citybrain_training.export import example_inputs, export_onnx
from citybrain_training.module import ForecastModule, build_network
from citybrain_training.speed.cities import prepared


def exported(seed: int = 0) -> tuple[bytes, dict[str, Any], Counter[str]]:
    """ONNX bytes; weights by name (``network``, a state, and the grid's ``embedding [node, …]``); operators of the
    exported graph, counted."""
    torch.manual_seed(seed)
    preparation = prepared()
    module = ForecastModule(build_network(preparation), preparation)
    model = export_onnx(module.network, example_inputs(module, preparation))
    weights = {"network": module.network.state_dict(), "embedding": module.embeddings["road"].detach().numpy()}
    return model, weights, Counter(node.op_type for node in onnx.load_from_string(model).graph.node)
