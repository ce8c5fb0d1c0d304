"""Errors in the shape of OpenAI's API: a status and a body with message, type, param and code."""

import logging
from collections.abc import Mapping
from typing import Any

import torch
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from finetune.core.errors import DataError, FinetuneError, ModelError, RecipeError
from finetune.core.terminal import visible

log = logging.getLogger(__name__)

NO_RETRY = {"x-should-retry": "false"}  # OpenAI's clients repeat a request after 5xx, unless this says no
MAX_MESSAGE = 1000  # characters


class ApiError(Exception):
    """An error that a client gets.

    Args:
        status: of the response.
        message: what is wrong and what to do.
        param: the parameter that is wrong, if it is one.
        code: a short name for programs.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.code, self.headers = status, param, code, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        kind = "rate_limit_error" if self.status == 429 else "server_error" if self.status >= 500 else ""
        content = {"message": str(self), "type": kind or "invalid_request_error", "param": self.param}
        return {"error": {**content, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def draining() -> ApiError:
    """The error of requests that a server no longer takes or finishes."""
    return ApiError(
        503, "the server is shutting down; send the request again", None, "shutting_down", {"Retry-After": "5"}
    )


def to_api_error(error: BaseException) -> ApiError:
    """The answer to a client after an error; the log has what it must not know."""
    if isinstance(error, ApiError):
        return error
    message = visible(str(error))[:MAX_MESSAGE]
    if isinstance(error, DataError):
        return ApiError(400, message, "file", "invalid_audio")
    if isinstance(error, RecipeError):
        return ApiError(400, message, None, "invalid_value")
    if isinstance(error, ModelError):
        return ApiError(400, message, "prompt", "invalid_prompt")
    if isinstance(error, TimeoutError):
        return ApiError(
            504, "the request was not finished before its deadline; send shorter audio", None, "deadline", NO_RETRY
        )
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        log.error("a request needs more memory than there is")
        return ApiError(500, "the server has not enough memory for this request", None, "out_of_memory", NO_RETRY)
    if isinstance(error, FinetuneError):
        return ApiError(500, message, None, "internal_error")
    log.error("unexpected %s", type(error).__name__, exc_info=error)
    return ApiError(500, "unexpected error; see the log of the server", None, "internal_error")


async def on_api_error(_: Request, error: Exception) -> JSONResponse:
    """The handler of every error of a route."""
    return to_api_error(error).response()


async def on_http_error(_: Request, error: Exception) -> JSONResponse:
    """The handler of errors of the framework, such as an unknown path."""
    assert isinstance(error, HTTPException)
    hints = {404: "no such path; those of OpenAI's API start with /v1/", 405: "this path does not accept this method"}
    message = hints.get(error.status_code, str(error.detail))
    return ApiError(error.status_code, message, None, None, error.headers).response()
