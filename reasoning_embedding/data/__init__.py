"""Files, hub and generators -> rows -> a table of distinct texts -> a plan (seed, step) -> tokens."""

from .cache import load_table, table_tokens
from .plan import Plan, PlannedRows
from .ragged import Ragged
from .rows import Row
from .table import Table, require_scores
from .tokens import TokenStore, tokenize
