"""Texts that every file can hold."""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """The text with escapes in the place of bytes that are not UTF-8, such as a file's name may have."""
    return text.encode("utf-8", "backslashreplace").decode()
