"""A bundle's folder is replaced whole, or stays what it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from citybrain_models.files import BundleError, read_folder, write_folder

ABOUT = {"format": 1}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_folder(tmp_path / "bundle", {"a": b"old"}, ABOUT)
    return tmp_path / "bundle"


def read(folder: Path) -> dict[str, bytes]:
    return read_folder(folder, ABOUT)[0]


def test_a_bundle_is_replaced_whole(bundle: Path) -> None:
    digest = write_folder(bundle, {"b": b"new"}, ABOUT)
    assert read_folder(bundle, ABOUT) == ({"b": b"new"}, digest)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_bundle_whose_replacement_fails_stays(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def lost(path: Path, target: Path) -> Path:
        if path.parent == bundle.parent and not path.name.endswith(("bundle", ".replaced")):
            raise OSError("stale file handle")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", lost)
    with pytest.raises(OSError, match="stale"):
        write_folder(bundle, {"b": b"new"}, ABOUT)
    assert read(bundle) == {"a": b"old"}
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_a_bundle_set_aside_by_a_killed_writer_is_read_until_the_next_is_written(bundle: Path) -> None:
    bundle.rename(bundle.with_name(".bundle.replaced"))
    assert read(bundle) == {"a": b"old"}
    write_folder(bundle, {"b": b"new"}, ABOUT)
    assert read(bundle) == {"b": b"new"}
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_nothing_else_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("years of work")
    with pytest.raises(BundleError, match="left as it is"):
        write_folder(tmp_path, {"a": b""}, ABOUT)
