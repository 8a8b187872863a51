"""Weights on their own: what a later training starts from. Read with ``weights_only``, so that no code in them runs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from citybrain_datasets.errors import CityBrainError
from citybrain_models.bundle import LEARNT_FROM
from citybrain_training.module import ForecastModule
from citybrain_training.preparation import GROUND, Preparation

EMBEDDINGS = "embeddings."
FITTED_ANEW = ("val_error", "levels", "graph_")
"""State that a training makes for itself."""


class WeightsError(CityBrainError):
    """Weights cannot be read, or belong to a network of another shape."""


def save_weights(module: ForecastModule, preparation: Preparation, path: Path) -> None:
    """Writes the weights, and the node ids to which the rows of the embeddings belong."""
    ids = {node: preparation.city.ids(node) for node in module.embeddings}  # type: ignore[arg-type]  # its keys are node types
    state = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith(FITTED_ANEW)}
    torch.save({"state_dict": state, "ids": ids}, path)


def read_weights(path: Path) -> dict[str, Any]:
    """``state_dict`` by name, and ``ids`` where the file holds them. Raises :class:`WeightsError`."""
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        return {"ids": {}, **found, "state_dict": dict(found["state_dict"])}
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from None
    except (pickle.UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: holds no weights ({reason[:200]})") from None


def check_ground(checkpoint: Path, preparation: Preparation) -> bool:
    """Whether a checkpoint says what it was trained on, and then that it was on this. Raises :class:`WeightsError`
    where it was on other windows or on other measurements of them."""
    told = read_weights(checkpoint).get(GROUND)
    if told is None:
        return False
    here = preparation.ground
    if told[LEARNT_FROM] != here[LEARNT_FROM]:
        (first, _), (_, last) = (told[LEARNT_FROM][part] for part in ("train", "validate"))
        raise WeightsError(
            f"{checkpoint}: was trained and chosen on windows from {first} to {last}, split otherwise than here; name "
            "the configuration of its run, and the city as it was then"
        )
    if not np.allclose([told["mean"], told["std"]], [here["mean"], here["std"]], rtol=1e-6):
        raise WeightsError(f"{checkpoint}: was trained on other measurements of these windows")
    return True


def start_from(module: ForecastModule, preparation: Preparation, path: Path) -> int:
    """Copies the weights of an earlier training and returns how many nodes are new.

    Embeddings follow their nodes by id. A node that was not there before starts without one, zero, which the network
    has learnt to do without. Raises :class:`WeightsError` where a shape differs: the network or its inputs changed.
    """
    found = read_weights(path)
    state, ids = found["state_dict"], found["ids"]
    new = 0
    taken: dict[str, Tensor] = {}
    for name, own in module.state_dict().items():
        if name.startswith(FITTED_ANEW):
            continue
        if name not in state:
            raise WeightsError(f"{path}: lacks {name}; it belongs to a network of another shape")
        given = state[name]
        node = name.removeprefix(EMBEDDINGS)
        if name.startswith(EMBEDDINGS) and node in ids:
            given, fresh = _by_id(given, ids[node], preparation.city.ids(node), own)  # type: ignore[arg-type]  # a node type
            new += fresh
        if given.shape != own.shape:
            raise WeightsError(f"{path}: {name} has shape {list(given.shape)}, this network needs {list(own.shape)}")
        taken[name] = given
    module.load_state_dict(taken, strict=False)
    return new


def _by_id(given: Tensor, before: Sequence[str], now: Sequence[str], own: Tensor) -> tuple[Tensor, int]:
    """Embeddings ``[node, embedding]`` in the order ``now``, and how many nodes had none ``before``."""
    row: Mapping[str, int] = {name: i for i, name in enumerate(before)}
    moved = own.new_zeros(len(now), given.shape[1])
    known = [i for i, name in enumerate(now) if name in row]
    moved[known] = given[[row[now[i]] for i in known]]
    return moved, len(now) - len(known)
