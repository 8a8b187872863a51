"""A case as it is answered and sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from citybrain_serving.chinese import translated
from citybrain_serving.encoding import utc
from citybrain_serving.languages import Language

if TYPE_CHECKING:
    from citybrain_serving.cases.casebook import Case


SYSTEM = "citybrain"
"""Who acts where nobody does."""


def case_document(case: Case, language: Language = "en") -> dict[str, Any]:
    """What the service itself noted is told in ``language``; what people wrote stays as they wrote it."""
    times = {name: getattr(case, name) for name in ("discovered", "filed", "dispatched", "closed", "over")}
    return {
        "number": case.number,
        "task": case.task,
        "id": case.node,
        "owner": case.owner,
        "cell": case.cell,
        "state": case.state,
        "opened_by": case.opened_by,
        **{name: None if time is None else utc(time) for name, time in times.items()},
        "problem": case.problem,
        "notes": [
            {"time": utc(n.time), "who": n.who, "action": n.action, "text": said}
            for n in case.notes
            for said in [translated(n.text, language if n.who == SYSTEM else "en")]
        ],
    }
