"""Scoring embedders on retrieval tasks through mteb, and the lexical floors they stand beside."""

import os
import tempfile
from pathlib import Path

# mteb makes its default cache folder the moment it is imported, and fails where the home folder cannot be
# written. Results go to the folder that evaluate() is given; the default one is never used.
os.environ.setdefault("MTEB_CACHE", str(Path(tempfile.gettempdir()) / "reasoning-embedding-mteb"))
