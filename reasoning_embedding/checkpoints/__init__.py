"""Layout, atomic save, exact resume, provenance.

What needs torch is imported from its own module: :mod:`.embedder` (save and load) and :mod:`.state`.
"""

from .layout import ExperimentFolder, RunFolder, SweepFolder, step_name
from .provenance import content_hash, read_provenance, versions, write_provenance
from .retention import checkpoint_steps
