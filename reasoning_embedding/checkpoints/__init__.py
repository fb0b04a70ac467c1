"""Layout, atomic save, exact resume, provenance.

What needs torch is imported from its own module: :mod:`.embedder` (save and load) and :mod:`.state`.
"""

from .atomic import (
    atomic_file,
    atomic_folder,
    atomic_write,
    explain_disk_errors,
    read_json,
    remove_folder,
    write_json,
)
from .layout import RunFolder, step_name
from .provenance import content_hash, hash_file, read_provenance, versions, write_provenance
from .schedule import checkpoint_steps
