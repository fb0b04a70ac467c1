"""Functions of a user's own that a configuration names as ``module:function``: found, imported, checked.

Reading a configuration finds the file (:mod:`.reading.own_functions`), writes its whole path in the place of the
module's name, and beside it a digest of its text; so ranks, and processes of experiments and sweeps, run the same
function wherever they start.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

from pydantic import Field

from reasoning_embedding.errors import InputError, ReasoningEmbeddingError

from .reading.suggestions import did_you_mean

#: ``module:function``; ``FILE.py:function`` where reading has found the file.
ADDRESS = r"^([A-Za-z_][\w.]*|.+\.py):[A-Za-z_]\w*$"
Address = Annotated[str, Field(pattern=ADDRESS)]
#: Arguments of a function by name.
Options = dict[str, str | int | float | bool]
#: Hexadecimal.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: Begins the address of a function that a Python program gave.
FROM_PYTHON = "python:"
#: Name of a module's attribute: the digest of the text it was imported from.
_DIGEST = "__reasoning_embedding_sha256__"


def text_digest(file: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def load_function(address: str, *, where: str, sha256: str | None = None) -> Callable[..., Any]:
    """Import the function of an address.

    Parameters
    ----------
    address : str
        ``module:function`` or ``FILE.py:function``.
    where : str
        The key of the configuration, for messages.
    sha256 : str, optional
        Digest that the file's text must have.

    Raises
    ------
    InputError
        If the module cannot be imported, has no such function, has the name of another module, or its text is
        another one; or if a Python program gave the function.
    """
    if address.startswith(FROM_PYTHON):
        name = address.removeprefix(FROM_PYTHON)
        raise InputError(
            f"the function {name} was given by a Python program, which is not this one",
            where=where,
            todo=f"go on from Python, with the same function among terms=[...] ({name}); or put it into a file and name "
            "it as module:function",
        )
    module_name, _, name = address.rpartition(":")
    if module_name.endswith(".py"):
        file = Path(module_name)
        _check_digest(file, sha256, where)
        module = _import_file(file, where)
    else:
        with _explain_import(where, module_name):
            module = importlib.import_module(module_name)
        if sha256 is not None and module.__file__ is not None:
            _check_digest(Path(module.__file__), sha256, where)
    found = getattr(module, name, None)
    if not callable(found):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        what = (
            "it is no function" if found is not None else f"no function {name!r}{did_you_mean(name, known)}"
        )
        raise InputError(what, where=f"{where}: {module.__file__}", todo="name a function of that file")
    return found


def check_call(
    function: Callable[..., Any], arguments: int, options: Mapping[str, Any], *, where: str
) -> None:
    """Refuse a function that does not take so many arguments in order, and its options by name.

    Raises
    ------
    InputError
        Saying what it takes.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # written in C: nobody can tell
    try:
        signature.bind(*[None] * arguments, **options)
    except TypeError as error:
        named = "".join(f", {name}" for name in options)
        raise InputError(
            f"it takes {signature}, and is called with {arguments} arguments{' and' + named[1:] if named else ''}: {error}",
            where=where,
            todo="correct the function or its options; docs/extending.md has an example of each kind",
        ) from error


@contextlib.contextmanager
def explain_own_code(where: str) -> Generator[None]:
    """Turn what a user's function raises into an error that names the line; memory that ran out passes through.

    Raises
    ------
    InputError
        From the function's own exception.
    """
    try:
        yield
    except (ReasoningEmbeddingError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which nothing here may import
            raise
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise InputError(
            f"{type(error).__name__}: {error}",
            where=f"{where}: {frame.filename}:{frame.lineno}",
            todo="repair it",
        ) from error


def _check_digest(file: Path, sha256: str | None, where: str) -> None:
    try:
        now = text_digest(file)
    except OSError as error:
        raise InputError(
            f"cannot be read: {error.strerror}", where=f"{where}: {file}", todo="put the file back"
        ) from error
    if sha256 is not None and now != sha256:
        raise InputError(
            "the file has changed since the configuration was read",
            where=f"{where}: {file}",
            todo="start again, so that what is recorded is what runs",
        )


def _import_file(file: Path, where: str) -> ModuleType:
    """Import a file by its module's name; the folder that the name counts from goes to the end of Python's path.

    At the end: a library's or Python's own module is never replaced by a file that happens to have its name.
    """
    file, digest = file.resolve(), text_digest(file)
    root, name = module_of(file)
    if not _is_free(name, root, file):
        raise InputError(
            f"{name!r} is the name of another module, so Python would find that one",
            where=f"{where}: {file}",
            todo="rename the file",
        )
    if str(root) not in sys.path:
        sys.path.append(str(root))
    with _explain_import(where, str(file)):
        importlib.invalidate_caches()
        known = sys.modules.get(name)
        # Its text may be another one by now, as in a notebook.
        stale = known is not None and getattr(known, _DIGEST, None) != digest
        module = importlib.reload(known) if stale and known is not None else importlib.import_module(name)
    setattr(module, _DIGEST, digest)
    return module


def module_of(file: Path) -> tuple[Path, str]:
    """Return the folder that a file's dotted name counts from, above the packages it lies in, and that name."""
    root, parts = file.parent, [file.stem]
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _is_free(name: str, root: Path, file: Path) -> bool:
    """Whether a name, or the package it begins with, is nobody else's."""
    top = name.partition(".")[0]
    wanted = {file, (root / top / "__init__.py").resolve()}
    if top in sys.modules:
        origin = getattr(sys.modules[top], "__file__", None)
        return origin is not None and Path(origin).resolve() in wanted
    spec = importlib.util.find_spec(top)
    return spec is None or (spec.origin is not None and Path(spec.origin).resolve() in wanted)


@contextlib.contextmanager
def _explain_import(where: str, what: str) -> Generator[None]:
    try:
        yield
    except (ReasoningEmbeddingError, KeyboardInterrupt):
        raise
    except (
        BaseException
    ) as error:  # a script that calls sys.exit when it is imported must not end this one silently
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if frame.filename == what]
        place = f"{what}:{own[-1].lineno}" if own else what
        raise InputError(
            f"cannot import it ({type(error).__name__}: {error})",
            where=f"{where}: {place}",
            todo="repair the file so that Python can import it",
        ) from error
