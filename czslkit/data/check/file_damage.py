"""Find damage that decoders do not report, from the structure of PNG and JPEG files.

Pillow does not compare the checksums of a PNG's pixels, and a JPEG decoder fills whatever is missing. Bytes after the
end of an image are accepted: phones append videos and other data.
"""

from __future__ import annotations

import mmap
import re
import zlib
from pathlib import Path
from typing import BinaryIO

_PNG_START = 8  # bytes of the signature
_MARKER = re.compile(rb"\xff+([^\x00\xff])")
_END_OF_SCAN = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # restart markers are part of a scan
_PICTURE, _END, _SCAN, _TABLES, _PROGRESSIVE = 0xD8, 0xD9, 0xDA, 0xC4, 0xC2
_ALONE = (0x01, *range(0xD0, 0xD8))  # markers without a segment
_LEAST_MARKER = 0xC0
_FREQUENCIES = 64  # of a block
_LONG, _VERY_LONG = 64, 2048  # bytes
_BLOCK = 1 << 20  # bytes of a PNG that are read at a time


def file_damage(file: Path, kind: str) -> str:
    """Return the damage of an image file that can be decoded, or an empty text.

    Args:
        file: the image file.
        kind: its format, by Pillow's name. Only PNG and JPEG files, also in MPO, have something to compare.
    """
    with file.open("rb") as opened:
        if kind == "PNG":
            return _png_damage(opened)
        if kind in ("JPEG", "MPO"):
            with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _jpeg_damage(content)
    return ""


def _png_damage(file: BinaryIO) -> str:
    """Return which chunk does not have its checksum, or that the last chunk is missing."""
    start = file.seek(_PNG_START)
    while len(head := file.read(8)) == 8:
        left, checksum = int.from_bytes(head[:4], "big"), zlib.crc32(head[4:])
        while left and (block := file.read(min(left, _BLOCK))):
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
        if checksum != int.from_bytes(file.read(4), "big"):
            return f"it is damaged: the PNG chunk at byte {start} does not have its checksum"
        if head[4:] == b"IEND":
            return ""
        start = file.tell()
    return "it is cut off: the last PNG chunk is missing"


def _jpeg_damage(content: mmap.mmap) -> str:
    """Return what is wrong with the markers of a JPEG file, or that bytes of its pixels are replaced by zeros."""
    scans = _Scans()
    at = 2
    while found := _MARKER.search(content, at):
        marker, at = found[1][0], found.end()
        if marker == _END:
            return "" if scans.complete() else "it is damaged: scans of the progressive JPEG are missing"
        if marker in _ALONE:
            continue
        length = int.from_bytes(content[at : at + 2], "big")
        if marker < _LEAST_MARKER or marker == _PICTURE or length < 2:
            return f"it is damaged: byte {found.start()} has an unexpected JPEG marker, {marker:02X}"
        scans.read(marker, content[at + 2 : at + length])
        at += length
        if marker == _SCAN:
            end = _END_OF_SCAN.search(content, at)
            limit = scans.longest_zeros()
            if end and limit and (zeros := content.find(bytes(limit), at, end.start())) >= 0:
                return f"it is damaged: there are only zeros from byte {zeros} on"
            at = end.start() if end else len(content)
    return "it is cut off: the JPEG end mark is missing"


class _Scans:
    """The Huffman tables of a JPEG file, as far as they tell what zeros mean."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}  # first symbol of each table, whose code has only zeros, by class and number
        self._progressive = False
        self._scan = b""
        self._missing: set[tuple[int, int]] = set()  # components and frequencies that are not known to the last bit

    def read(self, marker: int, segment: bytes) -> None:
        """Take in a segment of the file."""
        if marker == _PROGRESSIVE:
            self._progressive = True
            self._missing = {(component, k) for component in segment[6::3] for k in range(_FREQUENCIES)}
        elif marker == _SCAN and segment and len(segment) == 2 * segment[0] + 4:
            self._scan = segment
            *names, first, last, bits = segment[1::2][: segment[0]] + segment[-3:]
            if not bits & 0x0F:
                self._missing -= {(component, k) for component in names for k in range(first, last + 1)}
        while marker == _TABLES and len(segment) > 17:
            self._first[segment[0]] = segment[17]
            segment = segment[17 + sum(segment[1:17]) :]

    def complete(self) -> bool:
        """Return whether the scans of a progressive file have all bits of all frequencies."""
        return not self._missing

    def longest_zeros(self) -> int:
        """Return the number of zero bytes that the pixels of the last scan cannot have in a row; 0 for no limit.

        Zeros are the code of a flat area if the code of only zeros stands for no change of the mean and for no detail.
        If it stands for a change, the mean leaves its range after some hundred bytes. If it stands for a detail, the
        detail would be the same in whole blocks.
        """
        number = self._scan[0] if self._scan else 0
        tables = self._scan[2 : 1 + 2 * number : 2]
        first_band, later_bits = (self._scan[1 + 2 * number], self._scan[3 + 2 * number] >> 4) if number else (0, 0)
        if self._progressive and later_bits:
            return 0  # they stand in the file as they are
        means = [self._first.get(table >> 4, 0) for table in tables]
        details = [self._first.get(0x10 | table & 0x0F, 0) for table in tables]
        if self._progressive and first_band == 0:
            details = []
        elif self._progressive:  # symbols that end with 0, but for a run of 16 zeros, end a block or many blocks
            means, details = [], [symbol & 0x0F or symbol == 0xF0 for symbol in details]
        return _LONG if any(details) else _VERY_LONG if any(means) else 0
