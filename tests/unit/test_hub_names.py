"""Which files of a repository a reference means."""

from __future__ import annotations

import pytest

from snapllm import InvalidRequestError, StorageError
from snapllm.hub import choose_model, choose_projector, fetch

NAMES = [
    "README.md",
    "a-Q8_0.gguf",
    "a-Q4_K_M.gguf",
    "a-UD-Q4_K_M.gguf",
    "a-BF16/a-BF16-00002-of-00002.gguf",
    "a-BF16/a-BF16-00001-of-00002.gguf",
    "a.imatrix.gguf",
    "mmproj-F32.gguf",
    "mmproj-a-f16.gguf",
    "mmproj-BF16.gguf",
]


@pytest.mark.parametrize(
    ("tag", "files"),
    [
        (None, ["a-Q4_K_M.gguf"]),
        ("q8_0", ["a-Q8_0.gguf"]),
        ("UD-Q4_K_M", ["a-UD-Q4_K_M.gguf"]),
        ("BF16", ["a-BF16/a-BF16-00001-of-00002.gguf", "a-BF16/a-BF16-00002-of-00002.gguf"]),
        ("a-UD-Q4_K_M.gguf", ["a-UD-Q4_K_M.gguf"]),
    ],
)
def test_a_tag_means_a_quantization_or_a_file(tag: str | None, files: list[str]) -> None:
    assert choose_model(NAMES, "o/r", tag) == files


def test_a_file_goes_before_its_parts() -> None:
    whole = "a-BF16.gguf"
    assert choose_model([*NAMES, whole], "o/r", "BF16") == [whole]


def test_the_only_model_needs_no_tag() -> None:
    assert choose_model(["x.gguf", "mmproj-x.gguf"], "o/r", None) == ["x.gguf"]


@pytest.mark.parametrize(
    ("names", "tag", "message"),
    [
        (NAMES, "Q5_K", "o/r has no Q5_K, but .*a-Q8_0.gguf"),
        (NAMES, "Q4_K", "has no Q4_K, but"),
        (["a-Q4_0_4_4.gguf"], "Q4_0", "has no Q4_0, but"),
        (["a-Q2_K_XL.gguf"], "Q2_K", "has no Q2_K, but"),
        (["a-7B-Q4_0.gguf", "a-14B-Q4_0.gguf"], "Q4_0", "any of a-14B-Q4_0.gguf, a-7B-Q4_0.gguf"),
        (["a-Q4_K_M.gguf", "a-Q4_K_M-draft.gguf"], None, "Q4_K_M may be any of"),
        (["mtp-Q4_K_M.gguf", "model.Q4_K_M.gguf"], None, "give the file's name"),
        (NAMES, "4", "has no 4"),
        (["x.gguf", "y.gguf"], None, "o/r: x.gguf, y.gguf"),
        (["model.safetensors", "mmproj-x.gguf"], None, "has no GGUF models"),
        ([], "Q4_0", "has no GGUF models"),
    ],
)
def test_what_means_no_file_is_refused_with_those_there_are(
    names: list[str], tag: str | None, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        choose_model(names, "o/r", tag)


def test_of_several_projectors_the_one_of_16_bits_is_taken() -> None:
    assert choose_projector(NAMES) == "mmproj-a-f16.gguf"
    assert choose_projector(["a-Q8_0.gguf"]) is None


@pytest.mark.parametrize("reference", ["", "r", "hf:r", "o/r:", "o/r/x.gguf", "hf:o/r:a b", "/a/b"])
def test_other_texts_are_no_references(reference: str) -> None:
    with pytest.raises(InvalidRequestError, match="expected hf:OWNER/REPO:TAG"):
        fetch(reference)


def test_a_hub_that_cannot_be_reached_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    class ConnectError(Exception):
        __module__ = "httpx"

    def list_repo_files(*_: object) -> list[str]:
        raise ConnectError("[Errno -2] Name or service not known")

    monkeypatch.setattr(hub.HfApi, "list_repo_files", list_repo_files)
    with pytest.raises(StorageError, match=r"^no/such: it is not downloaded yet, and ") as error:
        fetch("no/such")
    assert hub.constants.ENDPOINT in str(error.value)
    assert "Name or service not known" in str(error.value)
