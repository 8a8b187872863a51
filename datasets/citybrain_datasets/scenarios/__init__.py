"""What if: measures described, checked, simulated, and their outcomes.

``language`` is what a person writes, ``actions`` what it means on a network, ``truth`` what SUMO makes of it, and
``outcomes`` what comes out. Only ``truth`` and what it calls need the extra ``scenarios``.
"""
