"""A surrogate applied to roads that it was not trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sumolib", reason="reading the network needs the extra 'scenarios'")
pytest.importorskip("scipy", reason="routes need the extra 'scenarios'")

from citybrain_datasets.scenarios.language import Scenario
from citybrain_datasets.scenarios.outcomes import OUTCOMES, Traffic
from citybrain_datasets.scenarios.site import open_site
from citybrain_models.surrogate.applying import applied
from citybrain_models.surrogate.bundle import SurrogateBundle
from citybrain_models.surrogate.network import SurrogateError
from citybrain_models.surrogate.scorer import Scorer

SHIPPED = Path(__file__).parents[2] / "serving/citybrain_serving/scenarios/surrogates/embedded"
pytestmark = pytest.mark.skipif(not SHIPPED.is_dir(), reason="no surrogate ships for the embedded city")
CLOSURE = {"id": "c", "measures": [{"lever": "closure", "where": {"segments": ["R010"]}}]}


@pytest.mark.timeout(280)
def test_it_keeps_its_promises_there(tmp_path: Path) -> None:
    bundle, site = SurrogateBundle.read(SHIPPED), open_site("embedded")
    site = replace(site, city=site.city.replace(name="elsewhere", title=""))
    free = site.segments["free_speed_kmh"].to_numpy(float)
    shape = (bundle.usual.slots, len(free))
    quiet = Traffic(np.broadcast_to(0.8 * free, shape), np.full(shape, 300.0), np.full(shape, 20.0))
    there = applied(bundle, site, [quiet]).write(tmp_path / "there")
    scorer = Scorer(SurrogateBundle.read(tmp_path / "there"))
    nothing, closed = scorer.score([Scenario(id="nothing"), Scenario.model_validate(CLOSURE)]).columns[
        "delay_veh_h_change"
    ]
    assert nothing == 0
    assert closed != 0
    # 300 vehicles an hour on every street at four fifths of the free speed, for two hours.
    lost = 300 * 2 * (site.segments["length_m"].to_numpy(float) / 1000 / free).sum() * (1 / 0.8 - 1)
    assert scorer.score([Scenario(id="nothing")]).columns["delay_veh_h"][0] == pytest.approx(lost, rel=1e-3)
    after = scorer.changed(scorer.levers([Scenario.model_validate(CLOSURE)], scorer.base.flow))
    assert (after.flow[0, scorer.network.ids.index("R010")] <= 300).all()
    assert set(there.margins) == set(OUTCOMES)
    assert there.metrics["trained_on"] == "embedded"
    assert "elsewhere" in there.card
    np.testing.assert_array_equal(scorer.network.signalled, site.signalled)
    np.testing.assert_array_equal(bundle.network.signalled, site.signalled)
    with pytest.raises(SurrogateError, match="8 slots"):
        applied(bundle, site, [Traffic(quiet.speed[:4], quiet.flow[:4], quiet.emission[:4])])
