"""Records of a data set of the Hugging Face Hub at a revision."""

from __future__ import annotations

from collections.abc import Iterator

from reasoning_embedding import config
from reasoning_embedding.errors import InputError, SetupError

from .rows import Record


def hub_records(source: config.HubSource) -> Iterator[Record]:
    """Records of a split, in its order; the formats are those of files.

    Parameters
    ----------
    source : HubSource
        The data set's id (or a local folder ``datasets`` can load), config, split and revision.

    Raises
    ------
    SetupError
        If the Hub cannot be reached.
    InputError
        If the data set, its config, split or revision does not exist, or it cannot be read.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    where = f"{source.dataset}[{source.split}]"
    try:
        rows = datasets.load_dataset(
            source.dataset, name=source.config, split=source.split, revision=source.revision
        )
    # ConnectionError is an OSError and DatasetNotFoundError a FileNotFoundError: the order matters.
    except ConnectionError as error:
        todo = "check the network, or download the data set and use kind: files"
        raise SetupError(f"cannot reach the Hub ({_first_line(error)})", where=where, todo=todo) from error
    except (DatasetsError, ValueError, OSError) as error:
        todo = "check dataset, config, split and revision (and `hf auth login` if it is gated)"
        raise InputError(
            f"cannot load the data set ({_first_line(error)})", where=where, todo=todo
        ) from error
    for number, record in enumerate(rows, start=1):
        yield f"{where} row {number}", record


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
