"""The protocol's documents, for the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from citybrain_serving.routes.documentation import schema


class ErrorBody(BaseModel):
    error: str


class ServerBody(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorBody(BaseModel):
    name: str
    datatype: str
    shape: list[int] = Field(description="-1 is a dimension that may vary")


class ModelBody(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorBody]
    outputs: list[TensorBody]
    parameters: dict[str, Any]


class ModelReady(BaseModel):
    name: str
    ready: bool


class InferTensor(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    shape: list[int] = Field(max_length=8)
    datatype: str
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = Field(None, description="row-major, flat or nested like shape")


class WantedOutput(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    parameters: dict[str, Any] | None = None


class InferRequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str | None = Field(None, max_length=256)
    parameters: dict[str, Any] | None = None
    inputs: list[InferTensor] = Field(min_length=1)
    outputs: list[WantedOutput] | None = None


class InferBody(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferTensor]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody, "description": text}
    for status, text in (
        (400, "The request does not fit the model"),
        (404, "No such model or version"),
        (413, "Too many bytes or rows"),
        (503, "The queue is full; Retry-After says when to come back"),
    )
}


INFER_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": schema(InferRequestBody)},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
