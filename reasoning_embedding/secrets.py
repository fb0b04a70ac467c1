"""Secrets never leave: not in a log, a record, a card or a message."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

STARS = "***"
_SECRETS = (
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}"), STARS),
    (re.compile(r"\b(bearer)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {STARS}"),
    # user:password@ of a URL
    (re.compile(r"(?<=://)[^/\s@]+@"), f"{STARS}@"),
    # Signatures of presigned storage URLs, and keys written as name=value or name: value.
    (
        re.compile(
            r"\b((?:x-amz-\w+|signature|\w*api_?key|token|access_token|secret|password)[\"']?\s*[=:]\s*[\"']?)"
            r"[^\s\"'&]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{STARS}",
    ),
)
#: Environment variables whose values are secrets, by name.
_NAMES = re.compile(r"(?:^|_)(?:TOKEN|API_?KEY|ACCESS_KEY|SECRET|SECRET_KEY|PASSWORD)$", re.IGNORECASE)


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret, as ``HF_TOKEN`` does."""
    return _NAMES.search(name) is not None


def known_secrets() -> list[str]:
    """Return the secrets of this process's environment; shorter ones than eight characters are words."""
    return [value for name, value in os.environ.items() if is_secret_name(name) and len(value) >= 8]


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
            text = text.replace(secret, STARS)
    for pattern, stars in _SECRETS:
        text = pattern.sub(stars, text)
    return text


def masked(value: Any) -> Any:
    """Return JSON values with the secrets in their texts masked, also those of this process's environment."""
    known = known_secrets()
    return with_texts(value, lambda text: mask(text, *known))


def with_texts(value: Any, change: Callable[[str], str]) -> Any:
    """Return JSON values with each text changed; tuples become lists."""
    if isinstance(value, dict):
        return {key: with_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [with_texts(item, change) for item in value]
    return change(value) if isinstance(value, str) else value
