"""Which windows an epoch is validated on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from citybrain_datasets.city import City
from citybrain_training.batches import Windows, spread
from citybrain_training.config import TrainConfig
from citybrain_training.preparation import prepare


@given(st.integers(1, 5000), st.integers(1, 1500))
def test_validation_windows_are_spread_over_the_whole_part(windows: int, most: int) -> None:
    issues = pd.date_range("2024-01-01", periods=windows, freq="5min", tz="UTC")
    found = spread(issues, most)
    assert len(found) == min(windows, most)
    assert found.is_monotonic_increasing
    assert found.is_unique
    assert found[0] == issues[0]
    assert most == 1 or found[-1] == issues[-1]
    assert len(found) < 3 or np.diff(found.asi8).max() <= 2 * np.diff(found.asi8).min()


def test_no_epoch_disturbs_what_another_did(small_city: City, quick: TrainConfig) -> None:
    """A loader made anew for each epoch draws anew, and the same again for the same epoch."""
    config = quick.merged({"fit": {"windows_per_epoch": 64, "disturbed": 1.0, "phantoms": 0.4}})
    windows = Windows(prepare(small_city, "congestion", config))

    def phantoms(epoch: int) -> list[list[bool]]:
        windows.trainer = SimpleNamespace(current_epoch=epoch, world_size=1, global_rank=0)
        return [arrays["phantom"].tolist() for arrays, _ in windows.train_dataloader()]

    assert phantoms(0) != phantoms(1)
    assert phantoms(1) == phantoms(1)


def test_every_epoch_is_validated_on_so_many_windows(small_city: City, quick: TrainConfig) -> None:
    config = quick.merged({"fit": {"validation_windows": 20}})
    loader = Windows(prepare(small_city, "congestion", config)).val_dataloader()
    assert sum(len(answer) for _, answer in loader) == 20
