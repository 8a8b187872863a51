"""A case as it is answered and sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from citybrain_serving.encoding import utc

if TYPE_CHECKING:
    from citybrain_serving.cases.casebook import Case


def case_document(case: Case) -> dict[str, Any]:
    times = {name: getattr(case, name) for name in ("discovered", "filed", "dispatched", "closed", "over")}
    return {
        "number": case.number,
        "task": case.task,
        "id": case.node,
        "owner": case.owner,
        "cell": case.cell,
        "state": case.state,
        **{name: None if time is None else utc(time) for name, time in times.items()},
        "problem": case.problem,
        "notes": [{"time": utc(n.time), "who": n.who, "action": n.action, "text": n.text} for n in case.notes],
    }
