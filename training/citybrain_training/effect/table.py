"""A study's record as tables that a person reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from citybrain_datasets.signals import KINDS


def markdown(record: dict[str, Any]) -> str:
    """Effects, months of the site, placebos and what others found, as Markdown; the same record, the same text."""
    study = record["study"]
    parts = [_effects(record), _months(record), _placebos(record)]
    if study["published"]:
        parts.append(_rows(
            ("published", "where and when", "found", "differs from ours"),
            ((f"[{p['who']}]({p['source']})", p["where"], p["found"], p["comparable"]) for p in study["published"]),
        ))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _effects(record: dict[str, Any]) -> str:
    rank = {(r["signal"], r["node"]): r for r in record["ranks"]}
    rows = []
    for e in record["effects"]:
        place = rank.get((e["signal"], e["node"]))
        among = f"{place['rank']:.2f} of {place['places'] + 1}" if place else "–"
        rows.append((
            f"{e['signal']}, {KINDS[e['signal']].unit}", e["node"], f"{e['distance_m']}",
            _n(e["measured"]), _n(e["expected"]),
            f"{_n(e['change'], '+')} ({_n(e['low'])} … {_n(e['high'])})",
            f"{100 * e['relative']:+.0f} % ({100 * e['relative_low']:+.0f} … {100 * e['relative_high']:+.0f})",
            among, f"{e['model']['r2']:.2f}",
        ))  # fmt: skip
    head = ("signal", "node", "m from site", "measured", "expected", "change (90 %)", "relative (90 %)", "rank", "R²")
    return _rows(head, rows)


def _months(record: dict[str, Any]) -> str:
    first = record["effects"][0]
    rows = []
    for m in first["months"]:
        change = f"{_n(m['change'], '+')} ({_n(m['low'])} … {_n(m['high'])})"
        rows.append((m["month"], _n(m["measured"]), _n(m["expected"]), change))
    return _rows((f"{first['signal']} at {first['node']}", "measured", "expected", "change (90 %)"), rows)


def _placebos(record: dict[str, Any]) -> str:
    rows = ((d["signal"], d["node"], d["date"], _n(d["change"], "+"), f"{100 * d['relative']:+.0f} %",
             "yes" if d["within"] else "no") for d in record["placebo_dates"])  # fmt: skip
    return _rows(("placebo date for", "node", "date", "change", "relative", "within the 90 % error"), rows)


def _n(value: float | None, sign: str = "") -> str:
    if value is None:
        return "–"
    return f"{value:{sign}.3g}" if abs(value) < 1000 else f"{value:{sign}.0f}"


def _rows(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
