"""Models of the Hugging Face hub: which files of a repository are meant, and their download.

Downloads, their cache, keys and proxies are those of `huggingface_hub`, which
``pip install 'snapllm[hub]'`` brings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from snapllm._parts import PartName, part_name
from snapllm.errors import InvalidRequestError, ModelFileNotFoundError, StorageError

PREFIX = "hf:"
PREFERRED = ("Q4_K_M", "Q4_K_S", "Q4_0", "MXFP4", "Q5_K_M", "Q6_K", "Q8_0", "F16", "BF16")
"""Quantizations that a reference without a tag means, the first that there is."""
_PROJECTORS = ("F16", "BF16", "F32", "Q8_0")
_REFERENCE = re.compile(r"(?:hf:)?(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<tag>[\w./-]+))?")
_SUFFIX = ".gguf"
_HTTP_LIBRARIES = ("httpx", "httpcore", "requests", "urllib3")
"""How the names of the modules begin whose errors say that the hub cannot be reached."""


@dataclass(frozen=True)
class HubModel:
    """The files of a model from the hub, on this machine.

    Attributes:
        path: What `Engine.load` takes: the model's file, or the first of its parts.
        mmproj_path: The projector that its repository has; None = it has none.
    """

    path: Path
    mmproj_path: Path | None = None


def is_reference(text: str) -> bool:
    """Whether a text names a model of the hub rather than a file."""
    return text.startswith(PREFIX)


def fetch(reference: str, *, with_projector: bool = True) -> HubModel:
    """Downloads a model's files, those that are not there yet; blocks.

    Without the network what was downloaded before is found.

    Args:
        reference: ``OWNER/REPO``, or ``OWNER/REPO:TAG`` with a quantization (``Q4_K_M``) or a
            file's name; ``hf:`` may stand before it. Without a tag it is the first of `PREFERRED`
            that there is, or the only one.
        with_projector: Whether the projector of its repository is wanted, too.

    Raises:
        InvalidRequestError: It is no such reference; it means none of the repository's files,
            or cannot say which; or `huggingface_hub` is not installed.
        ModelFileNotFoundError: There is no such repository, or it is not open to this user.
        StorageError: The hub cannot be reached, or the disk is full.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        raise InvalidRequestError(f"expected {PREFIX}OWNER/REPO:TAG, not {reference!r}")
    repo, tag = match["repo"], match["tag"]
    try:
        import huggingface_hub
    except ModuleNotFoundError:
        raise InvalidRequestError(
            f"{reference}: models of the hub need huggingface_hub: pip install 'snapllm[hub]'"
        ) from None
    with _errors_of(reference):
        names, offline = _names_in(repo)
    try:
        wanted = choose_model(names, repo, tag)
    except InvalidRequestError:
        if offline is None:
            raise
        raise StorageError(_reason(reference, offline)) from None
    projector = choose_projector(names) if with_projector else None
    with _errors_of(reference):
        files = [Path(huggingface_hub.hf_hub_download(repo, name)) for name in wanted]
        seeing = Path(huggingface_hub.hf_hub_download(repo, projector)) if projector else None
    return HubModel(files[0], seeing)


def choose_model(names: Sequence[str], repo: str, tag: str | None) -> list[str]:
    """The files of the model that a tag means, the first part first.

    Args:
        names: The repository's files.
        repo: The repository, for what an error says.
        tag: A quantization or a file's name; None = the preferred one.

    Raises:
        InvalidRequestError: No file is meant, or it cannot be said which.
    """
    models = [name for name in names if _is_model(name) and _part(name).number == 1]
    for each in PREFERRED if tag is None else (tag,):
        fitting = [name for name in models if _has_tag(name, each)]
        if fitting:
            return _files_of(_only_one_of(fitting, repo, each), names)
    if tag is None and len(models) == 1:
        return _files_of(models[0], names)
    if not models:
        raise InvalidRequestError(f"{repo} has no GGUF models")
    listed = ", ".join(sorted(models))
    raise InvalidRequestError(f"{repo} has no {tag}, but {listed}" if tag else f"{repo}: {listed}")


def _only_one_of(names: Sequence[str], repo: str, tag: str) -> str:
    """The one that a tag means of those that fit it: of a quantization and its dynamic kind (UD)
    the plain one, and of a file and its parts the file."""
    models = {PurePosixPath(_part(name).name).name.replace("UD-", "") for name in names}
    if len(models) > 1:
        raise InvalidRequestError(
            f"{repo}: {tag} may be any of {', '.join(sorted(names))}: give the file's name"
        )
    return min(names, key=lambda name: (len(name), name))


def _files_of(name: str, names: Iterable[str]) -> list[str]:
    """A model's file, or all its parts."""
    first = _part(name)
    if not first.is_part:
        return [name]
    parts = {first.of(i + 1) + _SUFFIX for i in range(first.num_parts)}
    missing = sorted(parts.difference(names))
    if missing:
        raise StorageError(f"of the parts of {name} there are not {', '.join(missing)}")
    return sorted(parts)


def choose_projector(names: Iterable[str]) -> str | None:
    """The projector of a repository's model; None = it has none."""
    projectors = [name for name in names if name.endswith(_SUFFIX) and _is_projector(name)]

    def rank(name: str) -> tuple[int, str]:
        tags = (i for i, tag in enumerate(_PROJECTORS) if _has_tag(name, tag))
        return next(tags, len(_PROJECTORS)), name

    return min(projectors, key=rank, default=None)


@contextmanager
def _errors_of(reference: str) -> Iterator[None]:
    """Tells the library's errors as this package's."""
    from huggingface_hub import errors

    try:
        yield
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelFileNotFoundError(_reason(reference, error)) from None
    except Exception as error:  # its HTTP library's too, which is another in each of its versions
        raise StorageError(_reason(reference, error)) from error


def _names_in(repo: str) -> tuple[list[str], Exception | None]:
    """The files of a repository; without the network those that were downloaded, and why there is
    none."""
    import huggingface_hub
    from huggingface_hub import errors

    try:
        return list(huggingface_hub.HfApi().list_repo_files(repo)), None
    except errors.RepositoryNotFoundError:
        raise
    except Exception as error:  # see _errors_of
        try:
            folder = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
        except (errors.LocalEntryNotFoundError, OSError):
            raise error from None
        return [file.relative_to(folder).as_posix() for file in folder.rglob("*")], error


def _is_model(name: str) -> bool:
    is_other = _is_projector(name) or "imatrix" in PurePosixPath(name).name.lower()
    return name.endswith(_SUFFIX) and not is_other


def _is_projector(name: str) -> bool:
    return "mmproj" in PurePosixPath(name).name.lower()


def _part(name: str) -> PartName:
    return part_name(name.removesuffix(_SUFFIX))


def _has_tag(name: str, tag: str) -> bool:
    if tag.endswith(_SUFFIX):
        return name == tag
    # Behind it no further _: Q4_K is not Q4_K_M.
    pattern = rf"(?:^|[-._/]){re.escape(tag)}(?:$|[-./])"
    return re.search(pattern, _part(name).name, re.IGNORECASE) is not None


def _reason(reference: str, error: Exception) -> str:
    """What went wrong, without the advice that follows it on further lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = " ".join(lines[:2]) or type(error).__name__
    if type(error).__module__.startswith(_HTTP_LIBRARIES):
        from huggingface_hub import constants

        place = f"{constants.ENDPOINT} (HF_ENDPOINT names another hub)"
        return f"{reference}: it is not downloaded yet, and {place} cannot be reached: {reason}"
    return f"{reference}: {reason}"
