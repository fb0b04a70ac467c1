"""What may be published: records without secrets and paths, files without tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import Any

from reasoning_embedding.errors import InputError
from reasoning_embedding.secrets import TOKEN, known_secrets, mask, with_texts

_TEXT = {".json", ".jsonl", ".md", ".txt", ".jinja", ".yaml", ".yml"}


def public(value: Any) -> Any:
    """Return a record as it may be published: secrets masked, absolute paths cut to their last part."""
    return with_texts(value, _public_text)


def _public_text(value: str) -> str:
    if value.startswith(("/", "~", "\\\\")) or re.match(r"[A-Za-z]:[\\/]", value):
        value = PurePath(value.replace("\\", "/")).name
    return mask(value, *known_secrets())


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
        if TOKEN.search(content.decode(errors="replace")) or any(secret in content for secret in secrets):
            raise InputError(
                "this file holds an access token; nothing was uploaded",
                where=str(path),
                todo="take the token out of what the file was made from, and revoke it",
            )
