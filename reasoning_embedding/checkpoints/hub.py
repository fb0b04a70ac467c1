"""Models of the Hub, as folders on this machine."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding.errors import InputError, SetupError

#: What a model is read from; weights of other libraries (ONNX, OpenVINO, pickles) stay where they are.
_FILES = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_OTHERS = ["onnx/*", "openvino/*"]


def download(repo: str, revision: str | None, *, where: str) -> Path:
    """Return the folder of a Hub model, whose name is its commit; what is kept already is not downloaded again.

    Parameters
    ----------
    repo : str
        ``OWNER/NAME``.
    revision : str or None
        Branch, tag or commit; None: the main branch as it is now.
    where : str
        What the user calls it, for errors.

    Raises
    ------
    InputError
        If there is no such model or revision, or it is not open to this user.
    SetupError
        If the Hub cannot be reached, or the network may not be used, and no copy is kept.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=_FILES,
                ignore_patterns=_OTHERS,
            )
        )
    except RevisionNotFoundError as error:
        raise InputError(
            f"{repo} has no revision {revision!r} on the Hub",
            where=where,
            todo="name a branch, a tag or a commit that its page lists",
        ) from error
    except GatedRepoError as error:
        raise InputError(
            f"{repo} is not open to this user",
            where=where,
            todo="accept its terms on the Hub, and log in: hf auth login",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise InputError(
            f"the Hub has no model {repo}, or not for this user",
            where=where,
            todo="look at its spelling; of a private model: hf auth login. A folder of this machine begins with ./",
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise SetupError(
            f"the Hub cannot be asked for {repo}, and no copy of it is kept here ({reason})",
            where=where,
            todo="connect to the network (and unset HF_HUB_OFFLINE), or name a folder of this machine",
        ) from error
