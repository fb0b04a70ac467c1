"""Records of files, hub and generators -> rows -> a table of distinct texts -> tokens -> a plan (seed, step) -> batches.

:class:`.batch.Batch`, which holds tensors, is not imported here: reading and planning need no torch.
"""

from .cache import load_table, table_tokens
from .plan import Plan, PlannedRows
from .ragged import Ragged
from .rows import Row
from .table import Table, require_scores
from .tokens import TokenStore, tokenize
