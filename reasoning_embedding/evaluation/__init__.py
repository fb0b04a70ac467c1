"""Scoring embedders on retrieval tasks through mteb, and the lexical floors they stand beside."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path


def _give_mteb_a_folder() -> None:
    """Let mteb be imported where the home folder cannot be written.

    The moment it is imported it makes its default cache folder, and fails where it cannot. Results go to the folder
    that evaluate() is given, so the default one stays empty: any will do that no one else can have put there.
    """
    if os.environ.get("MTEB_CACHE"):
        return
    try:
        (Path.home() / ".cache" / "mteb").mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        made, maker = tempfile.mkdtemp(prefix="reasoning-embedding-"), os.getpid()
        os.environ["MTEB_CACHE"] = made
        atexit.register(lambda: shutil.rmtree(made, ignore_errors=True) if os.getpid() == maker else None)


_give_mteb_a_folder()
