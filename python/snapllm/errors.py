"""The exceptions of SnapLLM: one tree, one class for each error code of the API.

Everything SnapLLM refuses or fails at raises a subclass of `SnapLLMError`. Its
`code` is the code that the HTTP API reports for the same failure.
"""

from __future__ import annotations

import errno
import os
import re
from typing import ClassVar

__all__ = [
    "ContextLengthExceededError",
    "ContextNotFoundError",
    "ContextTooLargeError",
    "EngineClosedError",
    "GenerationFailedError",
    "InvalidModelError",
    "InvalidRequestError",
    "JobCancelled",
    "ModelFileNotFoundError",
    "ModelFileReplacedError",
    "ModelNotFoundError",
    "NoWorkspaceError",
    "NotFoundError",
    "OutOfMemoryError",
    "PreviousResponseNotFoundError",
    "QueueFullError",
    "SnapLLMError",
    "StorageError",
    "from_status",
]


class SnapLLMError(Exception):
    """Base of all SnapLLM errors.

    Attributes:
        code: The error's name in the HTTP API, for example ``"model_not_found"``.
        message: What went wrong, for a human.
        param: The argument or request field at fault, where one is known.
        is_of_prompt: Whether `param` is the prompt, by whatever name the caller has for it.
    """

    code: ClassVar[str] = "internal_error"
    is_of_prompt = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def __str__(self) -> str:
        return self.message


class InvalidRequestError(SnapLLMError, ValueError):
    """An argument or a field of the request is wrong."""

    code = "invalid_request"


class ContextLengthExceededError(InvalidRequestError):
    """The prompt does not fit into the model's context."""

    code = "context_length_exceeded"


class ModelNotFoundError(SnapLLMError, LookupError):
    """No model is loaded under that id."""

    code = "model_not_found"


class ModelFileNotFoundError(SnapLLMError, FileNotFoundError):
    """The model file does not exist or cannot be read; `filename` and `errno` are those of an
    `OSError`, where the file is known."""

    code = "file_not_found"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        filename: str | None = None,
        number: int = errno.ENOENT,
    ) -> None:
        super().__init__(message, param=param)
        if filename is not None:
            self.filename, self.errno, self.strerror = filename, number, os.strerror(number)

    def __reduce__(self) -> tuple[object, ...]:
        # `OSError` would send them only as its arguments, of which these are none.
        own = {name: getattr(self, name) for name in ("filename", "errno", "strerror")}
        return type(self), self.args, vars(self) | own


class ModelFileReplacedError(InvalidRequestError):
    """The model that is loaded is of a file that another one has replaced."""

    code = "model_file_replaced"


class InvalidModelError(SnapLLMError, ValueError):
    """The file is not a model that this build can load."""

    code = "invalid_model"


class OutOfMemoryError(SnapLLMError, MemoryError):
    """The model or its KV memory does not fit."""

    code = "out_of_memory"


class QueueFullError(SnapLLMError):
    """Too many requests are waiting for the model; try again later."""

    code = "queue_full"


class GenerationFailedError(SnapLLMError, RuntimeError):
    """The model failed while computing."""

    code = "generation_failed"


class JobCancelled(SnapLLMError):
    """The image job was cancelled before it was done."""

    code = "generation_cancelled"

    def __init__(self, message: str = "the image was cancelled") -> None:
        super().__init__(message)


class EngineClosedError(SnapLLMError, RuntimeError):
    """The engine or the model is shutting down."""

    code = "closed"


class StorageError(SnapLLMError, OSError):
    """The workspace cannot be read or written."""

    code = "storage_failed"


class NoWorkspaceError(StorageError):
    """What is asked for needs a workspace, and the engine has none."""

    code = "no_workspace"


class ContextTooLargeError(StorageError):
    """There is no place for a context's KV: too little RAM is given to KV."""

    code = "context_too_large"


class ContextNotFoundError(SnapLLMError, LookupError):
    """No context of that id or name exists, or it has expired."""

    code = "context_not_found"


class NotFoundError(SnapLLMError, LookupError):
    """What the server is asked for by its id is not there."""

    code = "not_found"


class PreviousResponseNotFoundError(InvalidRequestError):
    """The response that a request goes on from is not kept, or no longer."""

    code = "previous_response_not_found"


_BY_CODE: dict[str, type[SnapLLMError]] = {
    cls.code: cls
    for cls in (
        InvalidRequestError,
        ContextLengthExceededError,
        ModelNotFoundError,
        ModelFileNotFoundError,
        ModelFileReplacedError,
        InvalidModelError,
        OutOfMemoryError,
        QueueFullError,
        GenerationFailedError,
        EngineClosedError,
        StorageError,
    )
}


# What the core refuses about an option begins with the option's name; of the rest, its words tell.
_AT_FAULT = re.compile(
    r"([a-z]+(?:_[a-z]+)*) (?:must|holds|exceeds|names)\b"
    r"|(model_id) .* is (?:taken by|loaded with|of a file that)\b"
    r"|(model) .* is an embedding model\b"
    r"|model .* has a (pooling) of its own\b"
    r"|(?:the )?(prompt) is (?:empty|too long)\b"
    r"|(input) \d+(?: is empty| has|: token)\b"
    r"|(token) -?\d+ is not in the model's vocabulary",
    re.DOTALL,
)

# The model's own file was read before, also where it is the one that was given for both.
_NO_PROJECTOR = "it is not a projector (mmproj) file"

_NO_FILE = "Model file not found: "
_NUMBERS = {os.strerror(number): number for number in errno.errorcode}

# Of a template that the model's file brings, the core says that the model is invalid.
_GIVEN_TEMPLATE = re.compile(r"the chat template of .* cannot be read: (.*)", re.DOTALL)


def from_status(code: str, message: str) -> SnapLLMError:
    """Makes the exception for a status of the C++ core. Called by the bindings."""
    refused = _GIVEN_TEMPLATE.fullmatch(message) if code == InvalidRequestError.code else None
    if refused is not None:
        return InvalidRequestError(
            f"chat_template is no Jinja template that can be read: {refused[1]}",
            param="chat_template",
        )
    if code == ModelFileNotFoundError.code and message.startswith(_NO_FILE):
        return _no_file(message)
    error = _BY_CODE.get(code, SnapLLMError)(message)
    if isinstance(error, InvalidModelError) and message.endswith(_NO_PROJECTOR):
        error.param = "mmproj_path"
    named = _AT_FAULT.match(message)
    if named is not None and isinstance(error, InvalidRequestError):
        param = named[named.lastindex or 0]
        error.param = "prompt" if param == "token" else param
        error.is_of_prompt = error.param == "prompt"
    return error


def _no_file(message: str) -> ModelFileNotFoundError:
    """Behind the path, the core gives the system's reason in brackets where it has one."""
    path = message.removeprefix(_NO_FILE)
    head, _, reason = path.rpartition(" (")
    number = _NUMBERS.get(reason.removesuffix(")"))
    if number is None:
        return ModelFileNotFoundError(message, filename=path)
    return ModelFileNotFoundError(message, filename=head, number=number)
