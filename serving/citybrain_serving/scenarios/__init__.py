"""Scoring what measures would do: by the surrogate, by the hundred thousand, and over HTTP on the current forecast.

``rows`` turns scores into a table, ``engine`` spreads the work, ``parts`` keeps what is scored, ``ranking`` orders it.
"""
