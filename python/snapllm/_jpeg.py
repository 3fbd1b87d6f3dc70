"""What a JPEG file asks of whoever decodes it, before anybody does.

Reference: ITU-T T.81, annex B.
"""

from __future__ import annotations

import re

from snapllm.errors import InvalidRequestError

MAX_SCANS = 100
"""A decoder goes over the whole image for each; encoders make ten or so."""
MAX_SEGMENTS = 2000
MAX_EXIF_SEGMENTS = 16
"""Pillow copies all of those before for each."""

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # not those within a scan
_SCAN, _APP1, _END = 0xDA, 0xE1, 0xD9
# Without a length, or read so: Pillow reads on behind them up to the first scan.
_ALONE = (0x01, 0xC8, 0xD8, _END, *range(0xF0, 0xFE))


def check_jpeg(data: bytes, where: str) -> None:
    """Goes through the file's segments.

    Raises:
        InvalidRequestError: Decoding it would take far longer than its size lets expect.
    """
    num_scans = num_segments = num_exif = 0
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if num_scans > 0 and marker in _ALONE and marker != 0x01:
            return  # the end; or what no decoder reads on behind
        num_segments += 1
        num_scans += marker == _SCAN
        num_exif += marker == _APP1 and data.startswith(b"Exif", at + 2)
        if num_scans > MAX_SCANS or num_segments > MAX_SEGMENTS or num_exif > MAX_EXIF_SEGMENTS:
            raise InvalidRequestError(f"{where}: the image has too many parts", param=where)
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
