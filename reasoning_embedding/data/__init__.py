"""Files, hub and generators -> rows -> a table of distinct texts -> a plan (seed, step) -> tokens."""

from .cache import table_tokens
from .plan import Plan, PlannedRows
from .rows import Row
from .table import Ragged, Table, load_table, require_scores
from .tokens import TokenStore, tokenize
