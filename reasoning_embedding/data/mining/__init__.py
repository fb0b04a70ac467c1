"""Neighbours of queries among documents, and hard negatives; takes vectors or an encoder and knows no model."""
