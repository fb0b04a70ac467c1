"""Requests to the Hub: passing failures are tried again, every other one is an error with a cause and a cure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from reasoning_embedding.errors import InputError, ReasoningEmbeddingError, SetupError
from reasoning_embedding.secrets import mask

T = TypeVar("T")
#: Tries of a request that failed for a passing reason; the client itself tries uploads of files again.
TRIES = 3
LOGIN = "make a token with write permission at https://huggingface.co/settings/tokens, then `hf auth login`"
_PASSING = {408, 429, 500, 502, 503, 504}


def request(
    doing: str,
    ask: Callable[[], T],
    *,
    where: str,
    token: str,
    tries: int = TRIES,
    report: Callable[[str], None] = lambda line: None,
) -> T:
    """Make a request of the Hub's client.

    Parameters
    ----------
    doing : str
        What for, in words that follow "while".
    ask : callable
        Makes it; called again after a server's error or a lost connection, up to `tries` times in all.
    where : str
        The repository, for errors.
    token : str
        Shown in no error.
    tries : int
        At least 1.
    report : callable
        Takes a line for each new try.

    Raises
    ------
    SetupError
        Without network, in offline mode, without an accepted token, or when the Hub goes on failing.
    InputError
        When the Hub refuses.
    """
    from huggingface_hub.errors import HfHubHTTPError

    # The base of all network errors of the HTTP library that the client uses in its version.
    network: Any = HfHubHTTPError.__mro__[1]
    for attempt in range(1, tries + 1):
        try:
            with _client_without_words():
                return ask()
        except ReasoningEmbeddingError:
            raise
        except (network, OSError, RuntimeError, ValueError) as error:
            explained, passing = _explain(error, doing, where, token)
            if not passing or attempt == tries:
                raise explained from None  # the cause's text may hold addresses with signatures
            report(f"{explained.what}; trying again ({attempt + 1} of {tries})")
            time.sleep(2.0 ** (attempt - 1))
    raise ValueError(f"tries is {tries}, at least 1 is needed")


@contextlib.contextmanager
def _client_without_words() -> Generator[None]:
    """Keep the client from logging addresses: those of storage carry signatures."""
    from huggingface_hub.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _explain(error: Exception, doing: str, where: str, token: str) -> tuple[ReasoningEmbeddingError, bool]:
    """Say what went wrong, and whether it may pass."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    # Uploads of files run in threads, which wrap what went wrong.
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    if any(isinstance(item, OfflineModeIsEnabled) for item in chain):
        return SetupError("HF_HUB_OFFLINE is set", where=where, todo="unset it and run this again"), False
    refusal = next((item for item in chain if isinstance(item, HfHubHTTPError)), None)
    if refusal is not None:
        status = refusal.response.status_code
        line = _line(refusal.server_message or refusal, token)
        return _refused(status, f"{status} while {doing}", where, line), status in _PASSING
    if isinstance(error, PermissionError) and type(error).__module__.startswith("hf_xet"):
        return _refused(401, f"401 while {doing}", where, _line(error, token)), False
    if isinstance(error, (ValueError, FileNotFoundError, PermissionError)):
        return InputError(f"{doing}: {_line(error, token)}", where=where), False
    what = f"the connection failed while {doing} ({_line(chain[-1], token)})"
    todo = "check the network (and HF_ENDPOINT, HTTPS_PROXY) and run this again"
    return SetupError(what, where=where, todo=todo), True


def _refused(status: int, said: str, where: str, line: str) -> ReasoningEmbeddingError:
    if status == 401:
        what = f"the Hub does not accept the token ({said}): it may be expired, revoked or mistyped"
        return SetupError(what, where=where, todo=LOGIN)
    if status == 403:
        todo = "choose a repository of yours, or a token with write permission for this one"
        return InputError(f"this token may not do that ({said})", where=where, todo=todo)
    if status in (409, 412):
        todo = "look at what changed there, and run this again"
        return InputError(f"the repository changed at the same time ({said})", where=where, todo=todo)
    if status in _PASSING:
        busy = "the Hub limits the rate of requests" if status == 429 else "the Hub fails"
        todo = "wait a while (https://status.huggingface.co) and run this again"
        return SetupError(f"{busy} ({said})", where=where, todo=todo)
    return InputError(f"the Hub refuses: {line} ({said})", where=where)


def _line(error: object, token: str) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return mask(lines[0], token)[:300]
