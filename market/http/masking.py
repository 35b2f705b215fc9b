"""Hides a key that a venue repeats in its response, before a message can quote a part of it."""

import re
from collections.abc import Mapping

SHORTEST_KEY = 8  # letters; shorter parts of a header are words such as "Token"


def key_pattern(headers: Mapping[str, str]) -> re.Pattern[bytes] | None:
    """Match the keys of request headers, each letter as it is or as JSON or HTML may escape it."""
    keys = [part for value in headers.values() for part in value.split() if len(part) >= SHORTEST_KEY]

    def forms(letter: str) -> str:
        return rf"(?:{re.escape(letter)}|\\u00{ord(letter):02x}|&#{ord(letter)};|&#x{ord(letter):x};)"

    pattern = "|".join("".join(map(forms, key)) for key in keys)
    return re.compile(pattern.encode(), re.IGNORECASE) if pattern else None
