"""Which bundles may be served: those whose digest somebody wrote down."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from citybrain_datasets.folders import standing
from citybrain_datasets.packed_profile import packed
from citybrain_models.bundle import MANIFEST, Bundle, BundleError
from citybrain_models.files import LARGEST_MANIFEST, read_plain, sha
from citybrain_serving.errors import Forbidden, SafetyError, UnfitBundle


def read_allow_list(path: Path | str) -> frozenset[str]:
    """SHA-256 digests of manifests, one a line; what follows a ``#`` is a remark. Raises :class:`SafetyError`."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SafetyError(f"{path}: cannot be read ({error})") from None
    digests = set()
    for number, line in enumerate(lines, 1):
        digest = line.partition("#")[0].strip().lower()
        if digest and not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise SafetyError(f"{path}, line {number}: is no SHA-256 digest")
        digests |= {digest} if digest else set()
    return frozenset(digests)


def read_bundle(folder: Path | str, allowed: frozenset[str] | None = None) -> Bundle:
    """A bundle that is on the list, or any where there is none (``allowed`` None).

    The digest is compared before anything of the bundle is parsed. Raises :class:`BundleError`.
    """
    if allowed is None:
        return _lean(Bundle.read(folder))
    digest = sha(read_plain(standing(Path(folder)) / MANIFEST, LARGEST_MANIFEST))
    if digest in allowed:
        bundle = Bundle.read(folder)
        if bundle.digest == digest:  # and it is still the one that was looked at
            return _lean(bundle)
    raise BundleError(f"{folder}: digest {digest} is not on the list of allowed bundles")


def _lean(bundle: Bundle) -> Bundle:
    """A large city's profile is most of what its server would hold, and is kept in half of that."""
    return replace(bundle, statistics=packed(bundle.statistics))


def read_below(root: Path | None, name: str, allowed: frozenset[str] | None = None) -> Bundle:
    """The bundle called ``name`` below the folder ``root``, verified as at the start.

    Raises :class:`Forbidden` where no folder is set, :class:`UnfitBundle` for whatever else.
    """
    if root is None:
        raise Forbidden("no folder is set (bundle_root) that bundles may be loaded from")
    root = root.resolve()
    parts = Path(name).parts
    if "\0" in name or Path(name).is_absolute() or ".." in parts or not parts:
        raise UnfitBundle("bundle must be a path below the folder of bundles")
    folder = root.joinpath(*parts)
    if folder.parent.resolve() != folder.parent:
        raise UnfitBundle("bundle must be a path without links")
    try:
        return read_bundle(folder, allowed)
    except BundleError as error:
        raise UnfitBundle(str(error).replace(f"{root}/", "")) from None
