"""A profile in 16 bits tells what it told before, within half a step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from citybrain_datasets.packed_profile import PackedProfile, packed
from citybrain_datasets.statistics import Profile, Statistics

WEEK = 168
means = hnp.arrays(
    np.float32,
    st.tuples(st.just(WEEK), st.integers(1, 4)),
    elements=st.floats(-50, 2_000, width=32) | st.just(float("nan")),
)


@given(means)
def test_every_way_to_read_it_is_off_by_half_a_step_at_most(mean):
    small = PackedProfile(Profile(60, mean))
    known = mean[np.isfinite(mean)]
    span = float(known.max()) - float(known.min()) if len(known) else 0.0
    off = span / 131_068 + 4e-4  # and what float32 rounds at 2,000
    np.testing.assert_allclose(small.mean, mean, rtol=0, atol=off)
    slots = np.array([[0, WEEK - 1, 7]])
    np.testing.assert_array_equal(small.at(slots), small.mean[slots])
    np.testing.assert_array_equal(small.of(slice(None, None, 2)), small.mean[:, ::2])
    assert small.mean.dtype == np.float32


@pytest.mark.parametrize("value", [np.nan, 0.0, 31.5])
def test_a_profile_that_never_moves_is_kept_exactly(value):
    mean = np.full((WEEK, 3), value, np.float32)
    np.testing.assert_array_equal(PackedProfile(Profile(60, mean)).mean, mean)


def test_only_what_is_large_is_packed():
    small, large = (Profile(60, np.zeros((WEEK, nodes), np.float32)) for nodes in (1, 2))
    found = packed(Statistics({}, {"small": small, "large": large}), above=large.mean.nbytes)
    assert found.profiles["small"] is small
    assert isinstance(found.profiles["large"], PackedProfile)
