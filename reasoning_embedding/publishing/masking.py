"""Secrets never leave: not in a card, a record, a message, or an uploaded file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from reasoning_embedding.errors import InputError

_STARS = "***"
_SECRETS = (
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}"), _STARS),
    (re.compile(r"\b(bearer)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {_STARS}"),
    # user:password@ of a URL
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{_STARS}@"),
    # Signatures of presigned storage URLs, and keys written as name=value or name: value.
    (
        re.compile(
            r"\b((?:x-amz-\w+|signature|\w*api_?key|token|access_token|secret|password)[\"']?\s*[=:]\s*[\"']?)"
            r"[^\s\"'&]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{_STARS}",
    ),
)
#: What is certainly a token of the Hub, wherever it stands in a file.
_TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{30,}")
_TEXT = {".json", ".jsonl", ".md", ".txt", ".jinja", ".yaml", ".yml"}


def mask(text: str, *known: str | None) -> str:
    """Put stars in place of everything that looks like a secret, and of the `known` ones.

    Parameters
    ----------
    text : str
        What will be shown or written.
    *known : str or None
        Secrets of this process, such as the token; None is ignored.
    """
    for secret in known:
        if secret:
            text = text.replace(secret, _STARS)
    for pattern, stars in _SECRETS:
        text = pattern.sub(stars, text)
    return text


def public(value: Any) -> Any:
    """Return a record as it may be published: secrets masked, absolute paths cut to their last part."""
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [public(item) for item in value]
    if not isinstance(value, str):
        return value
    if value.startswith(("/", "~", "\\\\")) or re.match(r"[A-Za-z]:[\\/]", value):
        value = PurePath(value.replace("\\", "/")).name
    return mask(value)


def refuse_secrets(files: Iterable[Path], *known: str | None) -> None:
    """Refuse files to upload that hold a token.

    Raises
    ------
    InputError
        Naming the file, not the token.
    """
    secrets = [secret.encode() for secret in known if secret]
    for path in files:
        if path.suffix not in _TEXT:
            continue
        content = path.read_bytes()
        if _TOKEN.search(content) or any(secret in content for secret in secrets):
            raise InputError(
                "this file holds an access token; nothing was uploaded",
                where=str(path),
                todo="take the token out of what the file was made from, and revoke it",
            )
