"""Folders replaced whole: a draft beside a folder takes its place, or the folder stays what it was."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def swap_in(draft: Path, folder: Path) -> None:
    """Puts ``draft``, of the same file system, in the place of ``folder``; it is on disk when this returns.

    If that fails, ``folder`` is what it was. A process that is killed between the two renames leaves ``folder`` under
    the name where :func:`standing` finds it and the next swap clears it away.
    """
    folder = folder.absolute()
    _sync(*draft.rglob("*"), draft)
    aside = _aside(folder)
    if folder.exists():
        _remove(aside)
        folder.rename(aside)
    try:
        draft.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    _sync(folder.parent)
    _remove(aside)


def standing(folder: Path) -> Path:
    """``folder``, or what it was where a swap that was cut off has left nothing in its place."""
    aside = _aside(folder.absolute())
    return aside if aside.is_dir() and not folder.exists() else folder


def _aside(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.replaced"


def _remove(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _sync(*paths: Path) -> None:
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
