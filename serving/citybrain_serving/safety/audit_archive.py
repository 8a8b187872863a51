"""Old entries of the audit log moved into files, across which the chain still holds.

A file holds entries as they were sealed, one JSON object a line. The log says up to which entry, with which seal, and
what the digest of the file is.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from citybrain_serving.errors import SafetyError
from citybrain_serving.files import placed
from citybrain_serving.safety.audit import ARCHIVED, AuditLog, Broken, Entry, Head, entry

NAMED = "audit-{first:012}-{last:012}.jsonl.gz"
PATTERN = "audit-*.jsonl.gz"

LONGEST = 2**20
"""Characters of a line; no entry comes near."""


@dataclass(frozen=True)
class Archived:
    """Entries ``first`` to ``last`` are in the file ``path``."""

    first: int
    last: int
    path: Path


def archive(log: AuditLog, before: date, folder: Path, who: str) -> Archived | None:
    """Moves the entries of the days before ``before`` (UTC) into a file in ``folder``; None where there are none.

    The file is on disk before an entry leaves the log. Should that fail the entries are in both, and the next time the
    same file is made again. Raises :class:`SafetyError` where the log is broken or another file has that name,
    :class:`~citybrain_serving.errors.StoreUnavailable` and ``OSError``.
    """
    found = log.verify()
    if isinstance(found, Broken):
        raise SafetyError(f"the audit log was tampered with, and is left as it is: {found.what}")
    folder.mkdir(parents=True, exist_ok=True)
    last = _last(log, before, found)
    if last is None:
        return None
    first = log.cut().number + 1
    path = folder / NAMED.format(first=first, last=last.number)
    digest = _write(path, log.entries(last.number))
    log.drop(last, entry(who, ARCHIVED, first=first, file=path.name, sha256=digest))
    return Archived(first, last.number, path)


def archived(folder: Path) -> Iterator[Entry]:
    """The entries of all files in ``folder``, in order. Raises :class:`SafetyError` for a file that is not one."""
    for path in sorted(folder.glob(PATTERN)):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as lines:
                while line := lines.readline(LONGEST):
                    yield Entry(**json.loads(line))
        except (OSError, EOFError, zlib.error, ValueError, TypeError) as error:
            raise SafetyError(f"{path}: is no archive of the audit log ({error})") from None


def _last(log: AuditLog, before: date, head: Head) -> Head | None:
    """The last of the entries that go. Where a clock was set back in between, the older ones behind stay."""
    last = None
    for kept in log.entries(head.number):
        if json.loads(kept.text).get("at", "") >= before.isoformat():
            break
        last = Head(kept.number, kept.seal)
    return last


def _write(path: Path, entries: Iterator[Entry]) -> str:
    """Writes the file whole or not at all, and returns its SHA-256. The same entries are the same bytes."""
    with placed(path) as out:
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as packed:
            for kept in entries:
                packed.write(json.dumps(kept._asdict(), ensure_ascii=False).encode() + b"\n")
        out.flush()
        digest = _digest(Path(out.name))
        if path.exists() and _digest(path) != digest:
            raise SafetyError(f"{path}: is there already and holds something else; it is left as it is")
    return digest


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
