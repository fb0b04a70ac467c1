"""Secrets never leave: not in a log, a record, a card or a message.

Two ways of looking: :func:`mask` for what is said (messages, logs), where a star too many does no harm, and
:func:`written` for what other code reads back (records, pages), where only what is certainly a secret is replaced:
tokens by their shape, passwords in URLs, private keys, and the values of this process's own secret variables. A
configuration is compared when its run goes on, so :func:`sealed` puts a keyed digest in the place of the value.
"""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

STARS = "***"
#: Tokens that their issuers gave a form of their own, so that they can be found. What is looked for ahead has an end, or
#: a long text of beginnings would take the square of its length.
_TOKENS = "|".join(
    (
        r"(?:hf|api_org)_(?:[A-Za-z0-9]{16,}|(?=[A-Za-z]{0,50}\d)(?=[a-z0-9]{0,50}[A-Z])[A-Za-z0-9]{8,})",  # Hugging Face
        r"sk-(?=[\w-]{0,60}\d)(?=[\w-]{0,60}[A-Za-z])(?:(?:proj|svcacct|admin|ant|or|lf)-[\w-]{12,}|[A-Za-z0-9_]{16,}[\w-]*)",
        r"gh[opusr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[\w-]{16,}",  # GitLab
        r"xox[a-z]-[\w-]{10,}|xapp-[\w-]{20,}",  # Slack
        r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}",  # Amazon
        r"AIza[\w-]{35}|ya29\.[\w-]{20,}",  # Google
        r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}|whsec_[A-Za-z0-9+/=]{20,}",  # Stripe
        r"npm_[A-Za-z0-9]{30,}|pypi-[\w-]{30,}|dckr_pat_[\w-]{20,}",  # package registries
        r"(?:gsk|r8|xai|tgp_v1|fw|csk|pcsk|dop_v1|doo_v1|shpat|shpss|secret|ntn|lin_api|sgp|phc|phx)_[A-Za-z0-9]{24,}",
        r"(?:nvapi|tvly|pplx|cohere|jina|voyage|wandb_v1)[-_][\w-]{20,}|dapi[0-9a-f]{32}",
        r"SG\.[\w-]{16,200}\.[\w-]{16,}|key-[0-9a-f]{32}|hvs\.[\w-]{20,}|eyJ[\w-]{8,300}\.eyJ[\w-]{8,4000}\.[\w-]{8,}",
    )
)
#: A token of a known form, wherever it stands in a file.
TOKEN = re.compile(rf"(?<![A-Za-z0-9_])(?:{_TOKENS})")
#: What is certainly a secret wherever it stands. No match holds a quote: what is JSON stays JSON.
_CERTAIN = (
    (TOKEN, STARS),
    (
        re.compile(
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----[^\"'-]*(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----)?"
        ),
        STARS,
    ),
    # user:password@ of a URL, and a token in the place of both
    (re.compile(r"(?<=://)[^/\s@\"'<>]+@"), f"{STARS}@"),
    # Signatures of presigned storage URLs, and keys among the parameters of any other.
    (
        re.compile(
            r"([?&;](?:x-amz-\w+|x-goog-\w+|signature|sig|\w*api_?key|\w*token|secret|password|accountkey)=)[^\s\"'&<>]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{STARS}",
    ),
    (re.compile(r"\b(AccountKey|SharedAccessKey)=[A-Za-z0-9+/=]{16,}"), rf"\1={STARS}"),
)
#: What is probably one: a bearer's word, and what is written as name=value or name: value.
_PROBABLE = (
    (re.compile(r"\b(bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {STARS}"),
    (re.compile(r"\b(?:hf|api_org)_[A-Za-z0-9]{8,}"), STARS),
    (
        re.compile(
            r"\b((?:x-amz-\w+|signature|\w*api_?key|\w*access_?key|token|\w*(?:access|auth)_?token|\w*secret|\w*passw(?:or)?d"
            r"|\w*_pat|\w*_dsn|\w*credentials?)[\"']?\s*[=:]\s*[\"']?)[^\s\"'&]{4,}",
            re.IGNORECASE,
        ),
        rf"\1{STARS}",
    ),
)
#: Environment variables whose values are secrets, by the last words of their names: PGPASSWORD, OPENAI_KEY, GITHUB_PAT.
_NAMES = re.compile(
    r"""(?:^|_)(?:PAT|PWD|KEY|AUTH|PASS|JWT|DSN|CREDS?|CREDENTIALS?|CONNECTION_STRING|COOKIES?|SALT|BEARER|WEBHOOK
        |WEBHOOK_URL|DATABASE_URL|REDIS_URL|MONGO(?:DB)?_UR[IL]|BROKER_URL|SIGNATURE)$
      | (?:TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|APIKEY|ACCESSKEY|SECRETKEY|PRIVATEKEY|AUTHKEY)(?:_?(?:ID|VALUE|\d+))?$
      | ^MYSQL_PWD$ | ^PGPASSWORD$ | ^SSHPASS$ | _KEY_?(?:ID|BASE64|B64|VALUE|\d+)$""",
    re.IGNORECASE | re.VERBOSE,
)
#: Folders and kinds of keys that no one keeps secret, although their names end like a secret's.
_NO_SECRETS = frozenset({"PWD", "OLDPWD", "GPG_KEY"})
#: A word of a language: taken out of everything, it would take ordinary text with it.
_PLAIN_WORD = re.compile(r"[a-z]{1,11}|[A-Z][a-z]{1,10}")
#: A text in whose place a digest stands, see :func:`sealed`.
_SEAL = re.compile(r"\*\*\*secret:[0-9a-f]{32}")
#: Keyed digests are made with what this file of a folder holds.
KEY_FILE = ".secret-key"


def is_secret_name(name: str) -> bool:
    """Whether an environment variable of this name holds a secret, as ``HF_TOKEN`` and ``GITHUB_PAT`` do."""
    return name.upper() not in _NO_SECRETS and _NAMES.search(name) is not None


def known_secrets() -> list[str]:
    """Return the secrets of this process's environment, the longest first.

    Left out is what could not be told from ordinary text: values of fewer than eight characters, single words of
    fewer than twelve letters, and paths of files that are there.
    """
    values = {
        value.strip()
        for name, value in os.environ.items()
        if is_secret_name(name) and len(value.strip()) >= 8 and not _PLAIN_WORD.fullmatch(value.strip())
    }
    return sorted((value for value in values if not _is_path(value)), key=len, reverse=True)


def _is_path(value: str) -> bool:
    return value.startswith("/") and len(value) < 4096 and Path(value).exists()


def mask(text: str, *known: str | None) -> str:
    """Put stars in place of everything that looks like a secret, and of the `known` ones.

    Parameters
    ----------
    text : str
        What will be shown, or written to a log.
    *known : str or None
        Secrets of this process, such as the token; None is ignored.
    """
    return _replaced(text, known, (*_CERTAIN, *_PROBABLE))


def written(text: str) -> str:
    """Put stars in place of what is certainly a secret, also of this process's environment, in text for a file.

    Parameters
    ----------
    text : str
        A page, a table, a configuration as it was written; secrets are found as they stand, and as JSON or HTML
        write them.
    """
    known = known_secrets()
    forms = {form for secret in known for form in (secret, json.dumps(secret)[1:-1], html.escape(secret))}
    return _replaced(text, sorted(forms, key=len, reverse=True), _CERTAIN)


def _replaced(
    text: str, known: Iterable[str | None], patterns: tuple[tuple[re.Pattern[str], str], ...]
) -> str:
    for secret in known:
        if secret:
            text = text.replace(secret, STARS)
    for pattern, stars in patterns:
        text = pattern.sub(stars, text)
    return text


def masked(value: Any) -> Any:
    """Return JSON values whose texts and keys went through :func:`written`."""
    known = tuple(known_secrets())
    return with_texts(value, lambda text: _replaced(text, known, _CERTAIN), keys=True)


def holds_secret(text: str, known: Iterable[str]) -> bool:
    """Whether a text holds what is certainly a secret, or one of the :func:`known_secrets`."""
    return _replaced(text, known, _CERTAIN) != text


def with_texts(value: Any, change: Callable[[str], str], *, keys: bool = False) -> Any:
    """Return JSON values with each text changed, and with `keys` those of mappings; tuples become lists."""
    if isinstance(value, dict):
        return {
            change(key) if keys and isinstance(key, str) else key: with_texts(item, change, keys=keys)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [with_texts(item, change, keys=keys) for item in value]
    return change(value) if isinstance(value, str) else value


def sealed(value: Any, folder: Path) -> Any:
    """Return JSON values with a digest in the place of every text that holds a secret.

    The digest is ``***secret:`` and the first 32 hexadecimal digits of HMAC-SHA-256 under a random key, which lies
    in the folder's ``.secret-key``, readable by its owner alone. It tells nothing without that file, is another in
    every folder, and moves with the folder, so that a moved run still knows its settings.

    Parameters
    ----------
    value : Any
        Texts, numbers, lists and mappings.
    folder : Path
        Where the values will be written; receives the key, the first time one is needed.

    Raises
    ------
    OSError
        If the key cannot be written.
    """
    known = tuple(known_secrets())
    return with_texts(
        value,
        lambda text: _seal(text, _key(folder, make=True)) if holds_secret(text, known) else text,
    )


def unsealed(saved: Any, now: Any, folder: Path) -> Any:
    """Return what :func:`sealed` gave, with the texts of `now` where they are those that were sealed.

    Parameters
    ----------
    saved : Any
        Sealed values.
    now : Any
        Values in clear, of the same or another shape.
    folder : Path
        Where `saved` was read; without its key every seal stays, so that it differs from `now`.
    """
    if isinstance(saved, dict) and isinstance(now, dict):
        return {key: unsealed(item, now.get(key), folder) for key, item in saved.items()}
    if isinstance(saved, list) and isinstance(now, list | tuple):
        rest = [None] * max(0, len(saved) - len(now))
        return [unsealed(item, own, folder) for item, own in zip(saved, [*now, *rest], strict=False)]
    if isinstance(saved, str) and isinstance(now, str) and _SEAL.fullmatch(saved):
        key = _key(folder, make=False)
        if key and hmac.compare_digest(_seal(now, key), saved):
            return now
    return saved


def _seal(text: str, key: bytes) -> str:
    return f"{STARS}secret:{hmac.new(key, text.encode(errors='replace'), hashlib.sha256).hexdigest()[:32]}"


def _key(folder: Path, *, make: bool) -> bytes:
    path = folder / KEY_FILE
    try:
        return path.read_bytes()
    except OSError:
        if not make:
            return b""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{KEY_FILE}.{os.getpid()}.partial"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(os.urandom(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # the first of two processes wins, and both read the same key
    except FileExistsError:
        pass
    except OSError:  # a file system without links
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path.read_bytes()
