"""A Bundle's network, run by ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property

import numpy as np
import onnxruntime

from citybrain_datasets.features import Features, Window
from citybrain_datasets.task import Task
from citybrain_models.bundle import Bundle, BundleError
from citybrain_models.calibration import Calibration, parts_of_day
from citybrain_models.onnx_tensors import OnnxFileError, with_constants

MOST_CONSTANT = 1 << 30
"""Bytes of a graph beyond which it is fed with every window: no protobuf message holds two gigabytes."""


SLOW = ["SkipLayerNormFusion"]
"""Optimisers of ONNX Runtime that are left out: on a CPU, its sum with layer normalisation takes several times as long
as the two one after the other."""

LARGE = 10_000
"""Nodes of a city from which on working memory is given back after each run: of 100,000 it is gigabytes, which a
forecast every few minutes needs for a second."""


def open_session(model: bytes, threads: int = 1) -> onnxruntime.InferenceSession:
    """An inference session on the CPU with a set number of threads, from bytes: no path, so no file is followed.

    Raises :class:`BundleError` for bytes that ONNX Runtime will not run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = max(1, threads)
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW
        )
    except Exception as error:  # noqa: BLE001  # the errors of ONNX Runtime share no class of their own
        raise BundleError(f"model.onnx: ONNX Runtime will not run it: {error}") from None


class OnnxForecaster:
    """Forecasts from windows: features, network, calibration.

    ``forecast`` answers calibrated quantiles, ``raw`` those of the network. ``calibration`` is the bundle's until it
    is replaced by one that has learnt from outcomes.
    """

    def __init__(self, bundle: Bundle, threads: int = 1):
        self.bundle = bundle
        self.features: Features = bundle.features()
        self.calibration: Calibration = bundle.calibration
        self.threads = threads
        self._options = _giving_back() if len(bundle.city.ids(bundle.task.node)) >= LARGE else None
        self.inputs = [*bundle.graph, *(name for name in self._reads if name not in bundle.graph)]

    @cached_property
    def session(self) -> onnxruntime.InferenceSession:
        """The network for any graph: the bundle's own has to be fed to it."""
        return open_session(self.bundle.model, self.threads)

    @cached_property
    def _here(self) -> onnxruntime.InferenceSession:
        """The network for the bundle's own graph. What follows from the graph alone, such as the weights of edges, is
        computed here once and not with every window."""
        graph = self.bundle.graph
        if sum(array.nbytes for array in graph.values()) > MOST_CONSTANT:
            return self.session
        try:
            return open_session(with_constants(self.bundle.model, graph), self.threads)
        except OnnxFileError as error:
            raise BundleError(f"model.onnx: {error}") from None

    @cached_property
    def _reads(self) -> list[str]:
        return [node.name for node in self._here.get_inputs()]

    @property
    def task(self) -> Task:
        return self.bundle.task

    def raw(self, window: Window) -> np.ndarray:
        """Uncalibrated quantiles float32 ``[batch, node, horizon, quantile]``."""
        return self.run(self.features(window))

    def run(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """The network alone, on feature arrays; the bundle's graph is added."""
        graph = self.bundle.graph
        feed = {name: graph[name] if name in graph else arrays[name] for name in self._reads}
        return self._here.run(None, feed, self._options)[0]

    def forecast(self, window: Window) -> np.ndarray:
        part = parts_of_day(self.task, self.features.calendar, window.issue)
        return self.calibration.apply(self.raw(window), part)


def _giving_back() -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options
