"""The speed chapter of ``docs/benchmarks.md``, from the flat records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from citybrain_datasets.records import Record, uncommitted

BESIDE = {
    "torch_ms": "eager torch, ms",
    "runtime_ms": "ONNX Runtime, ms",
    "torch_over_runtime": "times faster",
    "runtime_int8_ms": "in int8, ms",
    "torch_over_runtime_int8": "times faster",
    "torch_as_exported_ms": "torch as exported, ms",
}
"""Metrics of what runs beside torch, and what their columns are called."""


def exponent(times: Mapping[int, float]) -> float:
    """The slope of log time over log size, by least squares."""
    return float(np.polyfit(np.log(list(times)), np.log(list(times.values())), 1)[0])


def markdown(records: Sequence[Record]) -> str:
    """What is told of the graph, a table beside torch, a table by size, and the exponents."""
    value = {(r["case"], r["metric"]): float(r["value"]) for r in records}
    beside = [case for case, metric in value if metric == "torch_over_runtime"]
    sizes = list(dict.fromkeys(case.partition(",")[0] for case, metric in value if metric == "network_ms"))
    lines = [
        "## Speed",
        "",
        "The network of the default configuration on a synthetic grid of streets, one window. Milliseconds are CPU "
        "time of one thread. The exported "
        f"graph has {value['exported graph', 'operators']:.0f} operators, "
        f"{value['exported graph', 'scatter_operators']:.0f} of which scatter. Eager torch runs the network as it is "
        "trained; beside it, the arrangement that is exported.",
        "",
        f"| city | {' | '.join(BESIDE.values())} |",
        "| --- |" + " ---: |" * len(BESIDE),
    ]
    for case in beside:
        found = (value.get((case, name)) for name in BESIDE)
        cells = ["" if number is None else f"{number:.2f}" for number in found]
        lines.append("| " + " | ".join([case, *cells]) + " |")
    lines += [
        "",
        "| city | features, ms | network, ms | most memory, MiB | training step, ms | most memory, MiB |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for city in sizes:
        cells = []
        for part, names in (
            ("inference", ("features_ms", "network_ms", "memory_mib")),
            ("training step", ("step_ms", "memory_mib")),
        ):
            found = (value.get((f"{city}, {part}", name)) for name in names)
            cells += [
                "" if number is None else f"{number:,.0f}" if number >= 100 else f"{number:.1f}" for number in found
            ]
        lines.append("| " + " | ".join([city, *cells]) + " |")
    grown = [
        f"{name} {value[name, 'exponent']:.2f}"
        for name in ("inference", "training step")
        if (name, "exponent") in value
    ]
    return "\n".join([*lines, "", f"Exponent of time over size: {', '.join(grown)}.", *uncommitted(records)])
