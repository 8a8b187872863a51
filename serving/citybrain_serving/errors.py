"""Errors of the serving room. Raised deep; :mod:`citybrain_serving.problem_details` maps each to HTTP
once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from citybrain_datasets.errors import CityBrainError


class ServingError(CityBrainError):
    """Something a caller can mend or wait out. ``extra`` goes into the problem document as it is."""

    def __init__(self, message: str, extra: Mapping[str, Any] | None = None):
        super().__init__(message)
        self.extra = dict(extra or {})


class FleetError(ServingError):
    """The bundles given cannot be served together, or not by these settings."""


class UnfitBundle(ServingError):
    """A bundle that cannot take the place of the one in use."""


class MalformedBody(ServingError):
    """A body that cannot be read as what it claims to be."""


class BodyTooLarge(ServingError):
    """A body over the limit, found out while it was read."""


class UnsupportedMedia(ServingError):
    """A body in a format that this address does not take."""


class NotAcceptable(ServingError):
    """None of the formats asked for can be given."""


class BadSelection(ServingError):
    """A query parameter that selects nothing sensible."""


class UnknownPlace(ServingError):
    """An id that no node of the city has."""


class UnknownTask(ServingError):
    """A forecast that no bundle of this service makes."""


class NothingAccepted(ServingError):
    """Not one reading of a body could be taken."""


class NotReady(ServingError):
    """No snapshot has been published yet, or none will be any more."""


LEAVING = "the service is about to stop"


class UnknownIssue(ServingError):
    """No forecast was kept that was issued at a time."""


class UnknownCase(ServingError):
    """There is no case of this number."""


class NotNow(ServingError):
    """An action that the state of a case does not allow."""


class BadScenario(ServingError):
    """A scenario that is none, or asks for what the city does not have."""


class UnknownJob(ServingError):
    """A scenario job that does not exist, or is somebody else's."""


class TooManyJobs(ServingError):
    """As many scenario jobs are under way as one service takes."""


class NoSurrogate(ServingError):
    """Scenarios cannot be scored here: nothing was trained for this city."""


class TooManyListeners(ServingError):
    """As many streams are open as one service keeps."""


class TooManyStreams(ServingError):
    """As many streams are open as one caller may have."""


class StoreUnavailable(ServingError):
    """The store cannot be read or written now."""


class StoreRefused(StoreUnavailable):
    """The store does not take a statement or a value, however often it is tried: a fault here, and no outage."""


class Deposed(StoreUnavailable):
    """Another replica computes by now: what this one wanted to publish is not written."""


class NotModified(Exception):
    """No error: the caller has the answer already. ``headers`` are those of the answer."""

    def __init__(self, headers: Mapping[str, str]):
        super().__init__("not modified")
        self.headers = dict(headers)


class SafetyError(ServingError):
    """A key, a token or a setting of safety that cannot be as it is."""


class Forbidden(SafetyError):
    """Something that this caller may not do, or not with what belongs to somebody else."""
