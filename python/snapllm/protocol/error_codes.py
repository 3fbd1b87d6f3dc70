"""The errors of the HTTP API: their codes, statuses and types."""

from __future__ import annotations

import msgspec
from typing_extensions import TypedDict

from snapllm.errors import SnapLLMError

_STATUS = {
    "invalid_request": 400,
    "context_length_exceeded": 400,
    "thread_unsupported_request": 400,
    "previous_response_not_found": 400,
    "file_not_found": 400,
    "invalid_model": 400,
    "unauthorized": 401,
    "origin_not_allowed": 403,
    "host_not_allowed": 403,
    "model_not_found": 404,
    "context_not_found": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "model_file_replaced": 409,
    "no_workspace": 409,
    "context_too_large": 413,
    "request_too_large": 413,
    "unsupported_encoding": 415,
    "queue_full": 429,
    "generation_cancelled": 409,
    "out_of_memory": 500,
    "generation_failed": 500,
    "storage_failed": 500,
    "internal_error": 500,
    "closed": 503,
}
# What an HTTP status says where nothing more is known.
_CODE_OF_STATUS = {
    _STATUS[code]: code
    for code in ("not_found", "method_not_allowed", "request_too_large", "unsupported_encoding")
}

# What the engine calls the prompt is a field of each endpoint's own; None = it has none, since the
# text is the context's.
_PROMPT_FIELDS: dict[str, str | None] = {
    "/v1/chat/completions": "messages",
    "/v1/messages": "messages",
    "/v1/messages/count_tokens": "messages",
    "/v1/embeddings": "input",
    "/v1/responses": "input",
    "/v1/responses/input_tokens": "input",
    "/api/v1/contexts/ingest": "content",
    "/api/v1/contexts/import": None,
    "/api/v1/contexts/{context_id}/append": "content",
    "/api/v1/contexts/{context_id}/query": "query",
    "/api/v1/contexts/{context_id}/fork": None,
    "/api/v1/contexts/{context_id}/promote": None,
    "/api/v1/contexts/{context_id}/demote": None,
    "/api/v1/contexts/{context_id}/export": None,
}

# Of a name that nothing has: of a model, or of a context, which may be part of a model's name.
_OF_A_NAME = ("model_not_found", "context_not_found")

RETRY_AFTER_S = 1


class ErrorObject(TypedDict):
    """What went wrong."""

    type: str
    message: str
    code: str
    param: str | None
    """The field at fault."""


class ErrorAnswer(TypedDict):
    """The body of an error of the OpenAI and native APIs."""

    error: ErrorObject


class ApiError(msgspec.Struct, frozen=True):
    """An error as the API reports it; `param` is the field at fault."""

    code: str
    message: str
    param: str | None = None

    @property
    def status(self) -> int:
        """Its HTTP status."""
        return _STATUS.get(self.code, 500)

    @property
    def type(self) -> str:
        """Its OpenAI type."""
        if self.status == 429:
            return "rate_limit_error"
        if self.status == 401:
            return "authentication_error"
        return "invalid_request_error" if self.status < 500 else "server_error"


def code_of_status(status: int) -> str:
    """The code of an error that is known by its HTTP status only."""
    return _CODE_OF_STATUS.get(status, "invalid_request")


def api_error(error: SnapLLMError, endpoint: str = "", model_field: str = "model") -> ApiError:
    """The API's view of an exception.

    Args:
        error: The exception.
        endpoint: The path of whoever was asked, as its route has it; empty = unknown.
        model_field: Where the request names its model, if its body has several places for it.
    """
    param = _PROMPT_FIELDS.get(endpoint, error.param) if error.is_of_prompt else error.param
    is_of_name = endpoint and param is None and error.code in _OF_A_NAME
    if param == "model" or is_of_name:
        param = _model_field(endpoint, model_field)
    return ApiError(error.code, error.message, param)


def _model_field(endpoint: str, field: str) -> str:
    """What an endpoint calls the model; a context's is that of the context."""
    for name in ("context_id", "model_id"):
        if f"{{{name}}}" in endpoint:
            return name
    return "model_id" if endpoint.startswith(("/api/v1/contexts", "/api/v1/models")) else field


def encode_error(error: ApiError) -> bytes:
    """The error body of the OpenAI and native APIs."""
    body: ErrorAnswer = {
        "error": {
            "type": error.type,
            "message": error.message,
            "code": error.code,
            "param": error.param,
        }
    }
    return msgspec.json.encode(body)
