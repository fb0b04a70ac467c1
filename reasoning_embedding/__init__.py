"""Text embedders grown from decoder language models: train, track, compare."""

__version__ = "0.1.0"
