"""Text files that OpenAI's clients attach to their messages."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from snapllm._files import InputFile, file_text
from snapllm.errors import InvalidRequestError

TEXT = "Grüße,\nall"
DATA = base64.b64encode(TEXT.encode()).decode()


@pytest.mark.parametrize(
    "data",
    [DATA, f"data:text/plain;base64,{DATA}", f"data:text/x;charset=utf-8;base64,{DATA}"],
)
def test_a_file_is_its_text(data: str) -> None:
    assert file_text(InputFile(file_data=data), "f") == TEXT
    assert file_text(InputFile(file_data=data, filename="a.txt"), "f") == f"a.txt\n{TEXT}"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "f.file_data"),
        ({"file_data": ""}, "f.file_data"),
        ({"file_data": "no base64"}, "f.file_data"),
        ({"file_data": "data:text/plain"}, "f.file_data"),
        ({"file_data": "data:text/plain,a%20b"}, "f.file_data"),
        ({"file_data": base64.b64encode(b"\xff\xfe").decode()}, "f.file_data"),
        ({"file_data": base64.b64encode(b"a\0b").decode()}, "f.file_data"),
        ({"file_data": base64.b64encode(b"%PDF-1.7\n").decode()}, "f.file_data"),
        ({"file_id": "file-1"}, "f.file_id"),
        ({"file_url": "http://x/a.txt"}, "f.file_url"),
    ],
)
def test_what_is_no_text_or_not_here_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as error:
        file_text(InputFile(**fields), "f")
    assert error.value.param == param
