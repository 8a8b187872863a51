"""Errors of the inference protocol, which wants ``{"error": …}`` and not a problem document."""

from __future__ import annotations

from citybrain_serving.errors import ServingError


class InferenceError(ServingError):
    """A request the protocol refuses; ``status`` is the HTTP status."""

    status = 400


class NoSuchModel(InferenceError):
    """A model, or a version of one, that is not loaded."""

    status = 404


class NotAllowed(InferenceError):
    """A method that an address does not take."""

    status = 405

    def __init__(self, message: str, methods: list[str]):
        super().__init__(message)
        self.methods = methods


class RequestTooLarge(InferenceError):
    """More rows or bytes than one request may have."""

    status = 413


class Overloaded(InferenceError):
    """The queue is full; the caller comes back after ``retry_after`` seconds."""

    status = 503

    def __init__(self, message: str, retry_after: int = 1):
        super().__init__(message)
        self.retry_after = retry_after
