"""The registry of models: who is champion, how it became so, and the way back. Aliases move; nothing is deleted."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from citybrain_datasets.folders import swap_in
from citybrain_models.bundle import MANIFEST, Bundle, BundleError
from citybrain_training.tracking import (
    BUNDLE,
    CHALLENGER,
    CHAMPION,
    RegistryError,
    alias_version,
    raise_unless_absent,
)

URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")
GATE, GATE_REASONS, GATE_CHAMPION = "gate", "gate_reasons", "gate_champion"
"""Tags of a version: the gate's answer, why, and the version of the champion it was held against."""
PASSED, FAILED = "passed", "failed"


@dataclass(frozen=True)
class Move:
    """The champion's alias went from ``previous`` (None: there was none) to ``version``; ``against`` is what spoke
    against it, None where nothing did."""

    name: str
    version: str
    previous: str | None
    against: str | None = None


def version_of(uri: str) -> ModelVersion:
    """The model version that ``models:/name@alias`` or ``models:/name/version`` names."""
    match = URI.fullmatch(uri)
    if match is None:
        raise RegistryError(f"{uri!r} is neither models:/NAME@ALIAS nor models:/NAME/VERSION")
    client, name = MlflowClient(), match["name"]
    try:
        if match["alias"]:
            return client.get_model_version_by_alias(name, match["alias"])
        return client.get_model_version(name, match["version"])
    except MlflowException as error:
        raise_unless_absent(error)
        raise RegistryError(f"{uri}: the registry has no such model") from None


def promote(name: str, version: str | None = None, *, by: str, reason: str, anyway: bool = False) -> Move:
    """Makes a version, the challenger if none is named, the champion.

    Raises :class:`RegistryError` where :func:`objection` has something against it, unless ``anyway``; then the
    objection stands in the version's tags and description, and in the registry's history.
    """
    wanted = version or alias_version(name, CHALLENGER)
    if wanted is None:
        raise RegistryError(f"{name}: has no challenger; name a version")
    found = version_of(f"models:/{name}/{wanted}")
    previous = alias_version(name, CHAMPION)
    if previous == wanted:
        raise RegistryError(f"{name}: version {wanted} is the champion already")
    against = objection(found, previous)
    if against is not None and not anyway:
        raise RegistryError(f"{name}: version {wanted} {against}; --anyway promotes it all the same")
    client = MlflowClient()
    if against is not None:
        reason = f"{reason} (though it {against})"
        _say_anyway(found, against)
    # The way back is written first: moving the alias is what makes it so.
    client.set_model_version_tag(name, wanted, "promoted_from", previous or "")
    _move(name, wanted, previous, "promote", by, reason)
    if alias_version(name, CHALLENGER) == wanted:
        client.delete_registered_model_alias(name, CHALLENGER)
    return Move(name, wanted, previous, against)


def objection(found: ModelVersion, champion: str | None) -> str | None:
    """What speaks against a version in the place of the version ``champion``; None where the gate let it pass against
    that very one, or where there is no champion to be held against."""
    if champion is None:
        return None
    answer, held = found.tags.get(GATE), found.tags.get(GATE_CHAMPION, "unknown")
    if answer == FAILED:
        return f"did not pass the gate: {found.tags.get(GATE_REASONS, 'no reasons kept')}"
    if answer != PASSED:
        return f"was never held against the champion, version {champion}, as `citybrain retrain` does"
    if held != champion:
        return f"passed the gate against version {held}, and version {champion} is champion now"
    return None


def _say_anyway(found: ModelVersion, against: str) -> None:
    """In the tags and the description of the version, its card in the registry; the bundle's own card is under its
    digest."""
    client, name, version = MlflowClient(), found.name, str(found.version)
    told = f"Promoted though it {against}"
    client.set_model_version_tag(name, version, "promoted_anyway", told[:5_000])
    before = found.description or ""
    client.update_model_version(name, version, f"{before}\n\n{told}.".strip()[:5_000])


def rollback(name: str, *, by: str, reason: str) -> Move:
    """Gives the champion's place back to the version from which the present one took it."""
    present = version_of(f"models:/{name}@{CHAMPION}")
    before = present.tags.get("promoted_from", "")
    if not before:
        raise RegistryError(f"{name}: version {present.version} took the place of none; there is no way back")
    _move(name, before, str(present.version), "rollback", by, reason)
    return Move(name, before, str(present.version))


def history(name: str) -> list[str]:
    """Every move of the champion's alias, the oldest first, in words."""
    try:
        tags = MlflowClient().get_registered_model(name).tags
    except MlflowException as error:
        raise_unless_absent(error)
        raise RegistryError(f"{name}: the registry has no such model") from None
    return [tags[key] for key in sorted(tags) if key.startswith("history.")]


def _move(name: str, version: str, previous: str | None, what: str, by: str, reason: str) -> None:
    client, now = MlflowClient(), datetime.now(UTC).isoformat(timespec="seconds")
    told = f"{now} {what}: {previous or 'none'} → {version}, by {by}: {reason}"
    client.set_registered_model_tag(name, f"history.{len(history(name)):05d}", told[:5_000])
    client.set_model_version_tag(name, version, what, told[:5_000])
    client.set_registered_model_alias(name, CHAMPION, version)


@contextmanager
def artifacts(found: ModelVersion, path: str, beside: Path | None = None) -> Iterator[Path]:
    """A run's artifacts under ``path``, in a folder that lasts as long as the body; next to ``beside`` if given."""
    parent = None if beside is None else beside.parent
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".fetch.", dir=parent))
    try:
        try:
            yield Path(download_artifacts(run_id=found.run_id, artifact_path=path, dst_path=str(work)))
        except MlflowException as error:
            raise RegistryError(f"{found.name} version {found.version}: its run holds no {path} ({error})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def registered_bundle(found: ModelVersion) -> Bundle:
    """The bundle of a version, verified. Raises :class:`BundleError` where it is not the one that was registered."""
    with artifacts(found, BUNDLE) as folder:
        return _verified(found, folder)


def fetch(uri: str, out: Path) -> Bundle:
    """Brings a registered bundle to ``out``, verified and whole, or leaves what was there.

    Raises :class:`BundleError` where ``out`` exists and is no bundle.
    """
    if out.exists() and not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and is no bundle; it is left as it is")
    found = version_of(uri)
    with artifacts(found, BUNDLE, beside=out) as folder:
        bundle = _verified(found, folder)
        swap_in(folder, out)
    return bundle


def _verified(found: ModelVersion, folder: Path) -> Bundle:
    bundle = Bundle.read(folder)
    if bundle.digest != found.tags.get(BUNDLE):
        raise BundleError(f"{found.name} version {found.version}: its bundle is not the one that was registered")
    return bundle
