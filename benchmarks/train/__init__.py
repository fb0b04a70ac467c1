"""A training step against sentence-transformers' trainer, once it is known to compute the right gradient."""
