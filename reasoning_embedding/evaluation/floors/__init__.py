"""What words alone score: the lexical floors that an embedder must rise above."""
