"""SLERP, soups, TIES and others over embedders' checkpoints (mergekit), and reports of merges.

Modules are imported where they are needed: torch and mergekit take seconds.
"""
