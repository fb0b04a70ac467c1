"""What a paper takes from an experiment: pairs of backbones, figures, tables and the sentences of an appendix."""
