"""Export: a trained network as ONNX, proven equal to torch, and the Bundle around it."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim

from citybrain_datasets.signals import Ticks
from citybrain_models.bundle import LEARNT_FROM, Bundle
from citybrain_models.calibration import Calibration, parts_of_day
from citybrain_models.nn.citynet import CityNet
from citybrain_models.nn.ensemble import Ensemble
from citybrain_models.nn.inference import InferenceNet
from citybrain_models.onnx_forecaster import open_session
from citybrain_training.evaluation import forecasts
from citybrain_training.fitting import NetworkForecaster
from citybrain_training.foresight import Foretold
from citybrain_training.module import ForecastModule
from citybrain_training.online import learnt_in_order
from citybrain_training.onnx_file import OPSET, TOLERANCE, ParityError, serialized
from citybrain_training.precision import in_precision
from citybrain_training.preparation import Preparation

PER_NODE = ("static_", "embedding_", "sensed_")
"""Beginnings of the names of inputs ``[node, …]`` that belong to the places."""


class _Positional(nn.Module):
    """A network whose inputs come in a fixed order, as an exported graph has them."""

    def __init__(self, network: nn.Module, names: list[str]):
        super().__init__()
        self.network = network
        self.names = names

    def forward(self, *tensors: Tensor) -> Tensor:
        answer: Tensor = self.network(dict(zip(self.names, tensors, strict=True)))
        return answer


def export_onnx(network: CityNet | Ensemble, inputs: Mapping[str, Tensor]) -> bytes:
    """ONNX bytes with dynamic batch, node and neighbour counts, every tensor inside.

    ``inputs`` are one example of what the network reads. Raises :class:`ParityError` unless ONNX Runtime agrees with
    torch on it and on resized batches and graphs.
    """
    network = network.eval()
    network.form = "gather"
    names = [name for name in inputs if network.reads(name)]
    example = tuple(inputs[name] for name in names)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Positional(InferenceNet(network), names),
            example,
            input_names=names,
            output_names=["quantiles"],
            dynamic_shapes=(tuple(_dynamic(name) for name in names),),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = serialized(program.model_proto)
    check_parity(network, model, {name: inputs[name] for name in names})
    return model


def check_parity(network: CityNet | Ensemble, model: bytes, inputs: Mapping[str, Tensor]) -> float:
    """Largest relative difference over the given inputs and resized ones. Raises :class:`ParityError` above 1e-4."""
    session = open_session(model)
    worst = 0.0
    for batch, scale in ((None, 1.0), (1, 1.0), (5, 1.0), (2, 0.3), (3, 2.5)):
        case = dict(inputs) if batch is None else _resized(inputs, batch, scale)
        with torch.inference_mode():
            expected = network(case).numpy()
        found = session.run(None, {name: tensor.numpy() for name, tensor in case.items()})[0]
        size = np.maximum(np.abs(expected), np.abs(expected).mean())
        difference = float(np.max(np.abs(found - expected) / size))
        if not difference <= TOLERANCE:
            raise ParityError(
                f"exported network differs from the trained one by {difference:.2e} (allowed {TOLERANCE:.0e}) "
                f"on a batch of {found.shape[0]} with {found.shape[1]} nodes"
            )
        worst = max(worst, difference)
    return worst


def _dynamic(name: str) -> dict[int, Any]:
    """Which dimensions of an input may change."""
    if name == "time":
        return {0: Dim.DYNAMIC}
    if name.endswith(("_index", "_edge")):
        return {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    if name.startswith(PER_NODE):
        return {0: Dim.DYNAMIC}
    return {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}


def _resized(inputs: Mapping[str, Tensor], batch: int, scale: float) -> dict[str, Tensor]:
    """The same inputs for another number of windows and a smaller or larger city, rows drawn with replacement."""
    random = np.random.default_rng((batch, round(10 * scale)))
    nodes = {n.removeprefix("static_"): len(t) for n, t in inputs.items() if n.startswith("static_")}
    rows = {node: random.integers(0, count, max(2, round(count * scale))) for node, count in nodes.items()}
    of_size = {count: node for node, count in nodes.items()}
    resized = {}
    for name, tensor in inputs.items():
        array = tensor.numpy()
        if name.startswith(PER_NODE):
            array = array[rows[name.split("_", 1)[1]]]
        elif name.endswith("_index"):
            receiver = of_size[array.shape[0]]
            array = array[rows[receiver]] % min(len(r) for r in rows.values())
        elif name.endswith("_edge"):
            array = array[rows[of_size[array.shape[0]]]]
        else:
            array = array[random.integers(0, array.shape[0], batch)]
            if array.ndim > 1 and name != "time":
                array = array[:, rows[of_size[array.shape[1]]]]
        resized[name] = torch.from_numpy(np.ascontiguousarray(array))
    return resized


def example_inputs(module: ForecastModule, preparation: Preparation, count: int = 3) -> dict[str, Tensor]:
    """What the network reads for ``count`` validation windows."""
    issues = preparation.split.validate[:: max(1, len(preparation.split.validate) // count)][:count]
    arrays = preparation.features(preparation.source.window(issues))
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return {name: tensor.detach() for name, tensor in module.eval().inputs(tensors).items()}


def calibrate(module: ForecastModule, preparation: Preparation, most: int = 4_000) -> tuple[Calibration, Calibration]:
    """Conformal calibration on the validation windows, thinned evenly to at most ``most``, and what learning from their
    outcomes in order of time moves on top of it: with that a service starts. The weather ahead errs there as it does in
    training: intervals that hold for perfect forecasts of it would hold for no others."""
    issues = preparation.split.validate
    issues = issues[:: max(1, len(issues) // most)]
    pairs = list(forecasts(NetworkForecaster(module, preparation), Foretold(preparation), issues))
    forecast, truth = (np.concatenate(part) for part in zip(*pairs, strict=True))
    part = parts_of_day(preparation.task, preparation.features.calendar, issues)
    fitted = Calibration.fit(preparation.task, forecast, truth, part)
    return fitted, learnt_in_order(fitted, preparation.source, issues, forecast)


def make_bundle(
    module: ForecastModule, preparation: Preparation, *, metrics: Mapping[str, Any] | None = None, card: str = ""
) -> Bundle:
    """Everything serving needs, in memory; :meth:`Bundle.write` puts it on disk. In the precision that the
    configuration asks for, where that is as good."""
    inputs = example_inputs(module, preparation)
    model = export_onnx(module.network, inputs)
    read = {i.name for i in open_session(model).get_inputs()}
    fixed = {n: t.numpy() for n, t in inputs.items() if n.startswith("embedding_") or n in preparation.graph}
    calibration, learnt = calibrate(module, preparation)
    read_signals = dict.fromkeys((*preparation.features.signals, *preparation.task.known_future))
    bundle = Bundle(
        task=preparation.task,
        city=preparation.city.replace(signals={}),
        placing={name: preparation.features.placing[name] for name in read_signals},
        clocks={name: Ticks.of(preparation.city.signals[name]) for name in read_signals},
        statistics=preparation.statistics,
        graph={name: array for name, array in fixed.items() if name in read},
        model=model,
        calibration=calibration,
        learnt=learnt,
        fingerprint=preparation.city.fingerprint(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        metrics={LEARNT_FROM: preparation.spans, **(metrics or {})},
        card=card,
    )
    return in_precision(bundle, preparation)
