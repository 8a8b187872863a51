"""What every ONNX file of ours has in common: its operators' version, how exactly it repeats torch, and no traces."""

from __future__ import annotations

from typing import Any

import onnx

from citybrain_datasets.errors import CityBrainError

TOLERANCE = 1e-4
"""Largest difference between torch and ONNX Runtime, relative to the forecast or, near zero, to its usual size."""

OPSET = 20


class ParityError(CityBrainError):
    """The exported network does not compute what the trained one does. Nothing is written."""


def serialized(model: onnx.ModelProto) -> bytes:
    """The model without what the exporter notes about where it ran: source paths are nobody else's business."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer]
    for part in parts:
        del part.metadata_props[:]
    return model.SerializeToString()
