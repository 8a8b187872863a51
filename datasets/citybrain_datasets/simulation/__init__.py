"""A synthetic city: a street plan, people who travel, weather, and the air that follows.

``build.simulate_city`` is the whole flow; every other module is one step of it. The steps stand alone, so
that a scenario can be run on the same network: ``traffic.run_window`` takes any demand and any disruptions,
and ``dispersion.source_receptor`` any receptors. Needs the extra ``scenarios`` (SUMO and SciPy).
"""
