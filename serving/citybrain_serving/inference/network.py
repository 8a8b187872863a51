"""A bundle's network as a model of the protocol: features in, uncalibrated quantiles out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import numpy as np
import onnxruntime
import pandas as pd

from citybrain_datasets.features import Features, Window
from citybrain_datasets.signals import NodeType
from citybrain_models.bundle import Bundle
from citybrain_models.onnx_forecaster import OnnxForecaster
from citybrain_serving.inference.errors import InferenceError
from citybrain_serving.inference.tensors import TensorSpec, datatype_of

Feed = Mapping[str, np.ndarray]

MOST_SHAPES = 64
"""Shapes of requests that are remembered as fitting: callers ask in few, and are checked once."""


class Network:
    """One loaded network. It shares the session of the cycle's forecaster; the graph is the bundle's.

    A caller sends the arrays of :class:`~citybrain_datasets.features.Features`. Graph inputs may be sent too
    and then replace the bundle's.
    """

    def __init__(self, forecaster: OnnxForecaster):
        self._forecaster = forecaster
        bundle: Bundle = forecaster.bundle
        self.name = bundle.task.name
        self.version = bundle.version
        self.digest = bundle.digest
        self.graph = bundle.graph
        made = forecaster.features(unmeasured(forecaster.features, bundle))
        self._admitted: dict[tuple[tuple[str, np.dtype, tuple[int, ...]], ...], int] = {}
        self.inputs: dict[str, TensorSpec] = {}
        self.graph_inputs: dict[str, TensorSpec] = {}
        for node in forecaster.session.get_inputs():
            kind = datatype_of(node.type)
            if node.name in bundle.graph:
                self.graph_inputs[node.name] = TensorSpec(node.name, kind, bundle.graph[node.name].shape)
            else:
                sizes = zip(node.shape[1:], made[node.name].shape[1:], strict=True)
                shape = (-1, *(fixed if isinstance(fixed, int) else usual for fixed, usual in sizes))
                self.inputs[node.name] = TensorSpec(node.name, kind, shape)

    @cached_property
    def outputs(self) -> dict[str, TensorSpec]:
        """Quantiles ``[batch, node, horizon, quantile]`` in the unit of the target."""
        task, bundle = self._forecaster.task, self._forecaster.bundle
        shape = (-1, len(bundle.city.nodes[task.node]), task.horizon, len(task.quantiles))
        outputs = self._forecaster.session.get_outputs()
        return {o.name: TensorSpec(o.name, datatype_of(o.type), shape) for o in outputs}

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """The protocol's description. Graph inputs are optional, so they are told among the parameters."""
        task = self._forecaster.task
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": "onnx_onnxv1",
            "inputs": [spec.describe() for spec in self.inputs.values()],
            "outputs": [spec.describe() for spec in self.outputs.values()],
            "parameters": {
                "target": task.target,
                "quantiles": list(task.quantiles),
                "optional_inputs": [spec.describe() for spec in self.graph_inputs.values()],
            },
        }

    def rows(self, feed: Feed) -> int:
        """Checks ``feed`` and returns its rows. Raises :class:`InferenceError` naming the tensor at fault."""
        shapes = tuple((name, array.dtype, array.shape) for name, array in feed.items())
        rows = self._admitted.get(shapes)
        if rows is None:
            if len(self._admitted) >= MOST_SHAPES:
                self._admitted.clear()
            rows = self._admitted[shapes] = self._checked(feed)
        return rows

    def _checked(self, feed: Feed) -> int:
        specs = {**self.inputs, **{name: spec for name, spec in self.graph_inputs.items() if name in feed}}
        unknown = [name for name in feed if name not in specs]
        missing = [name for name in self.inputs if name not in feed]
        if unknown or missing:
            what = f"there is no input {unknown[0]!r}" if unknown else f"input {missing[0]!r} is missing"
            raise InferenceError(f"{what}; the model reads {', '.join(self.inputs)}")
        for name, spec in specs.items():
            spec.admit(feed[name])
        batches = {name: feed[name].shape[0] for name in self.inputs}
        if len(set(batches.values())) != 1 or 0 in batches.values():
            told = ", ".join(f"{name} {rows}" for name, rows in batches.items())
            raise InferenceError(f"inputs must have one batch of at least 1 row, not {told}")
        return next(iter(batches.values()))

    def shares_batch(self, feed: Feed) -> bool:
        """Whether rows of this request may run beside those of others: only on the bundle's own graph."""
        return self.graph_inputs.keys().isdisjoint(feed)

    def run(self, feed: Feed) -> dict[str, np.ndarray]:
        """Outputs by name. Raises :class:`InferenceError` where the runtime refuses the input."""
        names = list(self.outputs)
        if self.shares_batch(feed):  # checked whole, and what follows from the graph alone is worked out already
            return {names[0]: self._forecaster.run(feed)}
        try:
            return dict(zip(names, self._forecaster.session.run(names, {**self.graph, **feed}), strict=True))
        except _RUNTIME_REFUSALS:
            raise InferenceError("the runtime refused the graph; it must index nodes that exist") from None


_RUNTIME_REFUSALS = (
    onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument,
    onnxruntime.capi.onnxruntime_pybind11_state.Fail,
    onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException,
)


def unmeasured(features: Features, bundle: Bundle) -> Window:
    """A window in which nothing was measured: it shows the shapes that features have in this city."""
    values = {}
    for name in features.signals:
        node = cast(NodeType, features.placing[name])
        shape = (1, len(features.offsets(name)), len(bundle.city.ids(node)))
        values[name] = np.full(shape, np.nan, np.float32)
    return Window(pd.DatetimeIndex(["2000-01-01"], tz="UTC"), values)
