"""Indices of congestion and air quality, each by a named standard with the date from which it holds.

What is stored and forecast are speeds and concentrations; an index is derived where it is shown. Kept here rather than
taken from the package ``aqi-hub``, which computes one value at a time, has no HJ 633-2012, does not round
concentrations and cuts off where the US rule rounds; tests compare the two where they must agree.
"""
