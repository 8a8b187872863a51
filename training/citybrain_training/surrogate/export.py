"""Export of a surrogate: its network as ONNX, proven equal to torch on other batches and other road networks."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from citybrain_models.nn.surrogate import SurrogateEnsemble
from citybrain_models.onnx_forecaster import open_session
from citybrain_training.onnx_file import OPSET, TOLERANCE, ParityError, serialized

INPUTS = (
    "levers", "closed", "context", "base", "unit", "relation",
    "downstream_index", "downstream_edge", "upstream_index", "upstream_edge",
)  # fmt: skip
"""In this order; a call has one base, so that ``context``, ``base`` and ``unit`` have a batch of 1."""

_BATCHED, _BASE = ("levers", "closed"), ("context", "base", "unit")


class _Positional(nn.Module):
    def __init__(self, network: SurrogateEnsemble):
        super().__init__()
        self.network = network

    def forward(self, *tensors: Tensor) -> Tensor:
        return self.network(dict(zip(INPUTS, tensors, strict=True)))


def export_surrogate(network: SurrogateEnsemble, inputs: Mapping[str, np.ndarray]) -> bytes:
    """ONNX bytes with dynamic batch, segment and neighbour counts, every tensor inside.

    ``inputs`` are one example. Raises :class:`ParityError` unless ONNX Runtime agrees with torch on it, on other
    batches and on smaller and larger road networks.
    """
    network = network.eval()
    network.form = "gather"
    tensors = {name: torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in INPUTS}
    dynamic = tuple(_dynamic(name) for name in INPUTS)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Positional(network), tuple(tensors.values()), input_names=list(INPUTS), output_names=["change"],
            dynamic_shapes=(dynamic,), opset_version=OPSET, dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
    assert program is not None
    model = serialized(program.model_proto)
    check_parity(network, model, tensors)
    return model


@torch.inference_mode()
def check_parity(network: SurrogateEnsemble, model: bytes, inputs: Mapping[str, Tensor]) -> float:
    """Largest difference from torch, relative to the size of the change. Raises :class:`ParityError` above 1e-4."""
    session = open_session(model)
    worst = 0.0
    for batch, scale in ((None, 1.0), (1, 1.0), (5, 1.0), (2, 0.3), (3, 2.1)):
        case = dict(inputs) if batch is None else _resized(inputs, batch, scale)
        expected = network(case).numpy()
        found = session.run(None, {name: tensor.numpy() for name, tensor in case.items()})[0]
        size = np.maximum(np.abs(expected), np.abs(expected).mean(axis=(0, 1, 2), keepdims=True) + 1e-6)
        worst = max(worst, float(np.max(np.abs(found - expected) / size)))
        if not worst <= TOLERANCE:
            raise ParityError(
                f"exported surrogate differs from the trained one by {worst:.2e} ({case['levers'].shape})"
            )
    return worst


def _dynamic(name: str) -> dict[int, Dim]:
    if name in _BATCHED:
        return {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    if name in _BASE:
        return {1: Dim.DYNAMIC}
    if name == "relation":
        return {1: Dim.DYNAMIC, 2: Dim.DYNAMIC}
    return {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}


def _resized(inputs: Mapping[str, Tensor], batch: int, scale: float) -> dict[str, Tensor]:
    """The same for another number of scenarios on a smaller or larger network, segments drawn with replacement."""
    random = np.random.default_rng((batch, round(10 * scale)))
    count = inputs["levers"].shape[1]
    rows = torch.from_numpy(random.integers(0, count, max(2, round(count * scale))))
    resized = {}
    for name, tensor in inputs.items():
        if name in _BATCHED:
            tensor = tensor[random.integers(0, len(tensor), batch)][:, rows]
        elif name in _BASE:
            tensor = tensor[:, rows]
        elif name == "relation":
            tensor = tensor[:, rows][:, :, rows]
        else:
            tensor = tensor[rows]
            tensor = tensor % len(rows) if name.endswith("_index") else tensor
        resized[name] = tensor.contiguous()
    return resized
