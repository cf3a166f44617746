"""JSON files with a digest of their own content, so that a damage and a later change are noticed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

_HEAD = re.compile(rb'\{"digest": "([0-9a-f]{16})",')


def content_digest(content: bytes) -> str:
    """Return the first 16 hex digits of the SHA-256 of ``content``."""
    return hashlib.sha256(content).hexdigest()[:16]


def with_digest(content: Mapping[str, Any], **layout: Any) -> str:
    """Return a dict as JSON whose first entry, ``digest``, is the digest of everything that follows it.

    Args:
        content: the dict, with at least one entry. An entry ``digest`` is replaced.
        layout: arguments of ``json.dumps``.

    >>> with_digest({"seed": 0})
    '{"digest": "31cfba9d36f2f988","seed": 0}'
    """
    rest = json.dumps({key: value for key, value in content.items() if key != "digest"}, **layout)[1:]
    return f'{{"digest": "{content_digest(rest.encode())}",{rest}'


def change_since_written(file: bytes, *, required: bool) -> str:
    """Return a text on the change of a file that :func:`with_digest` made; empty if every byte is as written.

    Args:
        file: the bytes of the whole file.
        required: a file without a digest counts as changed.

    >>> change_since_written(with_digest({"seed": 0}).encode().replace(b"0}", b"1}"), required=True)
    'was changed after it was written: its content has the digest d30ba4a8bb3f0c98, expected 31cfba9d36f2f988'
    """
    head = _HEAD.match(file)
    if head is None:
        return "was changed after it was written: it does not start with its digest" if required else ""
    expected, found = head[1].decode(), content_digest(file[head.end() :])
    if found == expected:
        return ""
    return f"was changed after it was written: its content has the digest {found}, expected {expected}"
