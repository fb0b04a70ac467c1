"""Layout, atomic save, exact resume, provenance."""

from .atomic import atomic_folder, atomic_write, explain_disk_errors, write_json
from .embedder import load_embedder, save_checkpoint, verify_content
from .layout import RunFolder, step_name
from .provenance import content_hash, hash_file, read_provenance, versions, write_provenance
from .schedule import checkpoint_steps
from .state import load_state, newest_resumable, prune_states, save_state
