"""Publishing: export, verify in a fresh process, model card, push.

What needs torch is in :mod:`.verify`; the Hub's client is imported where it is used.
"""

from .export import export
from .release import Release, Revision, plan_release
