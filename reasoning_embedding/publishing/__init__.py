"""Publishing: export, verify in a fresh process, model card, push.

What needs torch is in :mod:`.verify`, what needs the Hub's client in :mod:`.hub` and :mod:`.push`.
"""

from .export import export
from .release import Release, Revision, plan_release
