"""The scored part of a run on disk, so that a run broken off at any moment goes on where it was."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from citybrain_datasets.errors import CityBrainError
from citybrain_datasets.records import write_atomically


class RunError(CityBrainError):
    """A scoring run cannot go on as it is."""


class Parts:
    """The folder ``OUT.parts`` of a run: ``run.json`` says of what, ``part-NNNNNN.parquet`` hold the rows.

    Raises :class:`RunError` where the folder holds another run; ``restart`` throws that one away.
    """

    def __init__(self, out: Path, about: Mapping[str, Any], restart: bool = False):
        self.folder = folder_of(out)
        if restart:
            clear(out)
        self.folder.mkdir(parents=True, exist_ok=True)
        claim = self.folder / "run.json"
        said = json.dumps(about, sort_keys=True, ensure_ascii=False, indent=1)
        scored = any(self.folder.glob("part-*.parquet"))
        if scored and claim.exists() and claim.read_text(encoding="utf-8") != said:
            raise RunError(f"{self.folder}: holds another run, broken off; finish it, or start anew with --restart")
        write_atomically(claim, said)

    def path(self, number: int) -> Path:
        return self.folder / f"part-{number:06d}.parquet"

    def done(self, number: int) -> bool:
        return self.path(number).exists()

    def save(self, number: int, table: pa.Table) -> None:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        write_atomically(self.path(number), sink.getvalue().to_pybytes())

    def read(self, count: int) -> Iterator[pa.Table]:
        """The first ``count`` parts, in order."""
        for number in range(count):
            yield pq.read_table(self.path(number))


def folder_of(out: Path) -> Path:
    """Where the parts of the ranking ``out`` are kept."""
    return out.with_name(out.name + ".parts")


def clear(out: Path) -> None:
    """Lets go of what a run of ``out`` kept, once it is finished."""
    shutil.rmtree(folder_of(out), ignore_errors=True)


def write_table(table: pa.Table, path: Path) -> None:
    """Writes a Parquet file whole or not at all: the same bytes for the same table."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    write_atomically(path, sink.getvalue().to_pybytes())
