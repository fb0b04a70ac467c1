"""What every model card says."""

INTRODUCTION = """\
Attention is bidirectional by the stock architecture's own switch, `is_causal: false` in `config.json`; no
remote code is needed.

**Minimum versions: `transformers >= 5.2`, `sentence-transformers >= 6.0`.** Earlier versions of transformers
ignore the switch without a word: attention stays causal and the embeddings are others."""

CHECKED = """\
Both blocks were run in a fresh process before this model was uploaded, and gave the trainer's own embeddings
to 1e-5."""

LIMITS = """\
- Texts are cut at {max_tokens} tokens, prompt included.
- Scores hold for the tasks, instructions and lengths above; other domains and languages were not measured.
- Biases and errors of the backbone and of the training data remain.
- Embeddings of other revisions of this repository, or without the prompt, are not comparable with these."""

CITATIONS = """\
@misc{chan2026reasoning,
  title = {Do Reasoning Models Enhance Embedding Models?},
  author = {Chan, Wun Yu and Chen, Shaojin and Jing, Huihao and Lau, Kwun Hang and Li, Elton Chun-Chai and
            Wang, Zihao and Li, Haoran and Song, Yangqiu},
  year = {2026},
  eprint = {2601.21192},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2601.21192}
}

@misc{li2025tracing,
  title = {Tracing the Representation Geometry of Language Models from Pretraining to Post-training},
  author = {Li, Melody Zixuan and Agrawal, Kumar Krishna and Ghosh, Arna and Teru, Komal Kumar and
            Santoro, Adam and Lajoie, Guillaume and Richards, Blake A.},
  year = {2025},
  eprint = {2509.23024},
  archivePrefix = {arXiv},
  url = {https://arxiv.org/abs/2509.23024}
}

@inproceedings{reimers-2019-sentence-bert,
  title = {Sentence-BERT: Sentence Embeddings using Siamese BERT-Networks},
  author = {Reimers, Nils and Gurevych, Iryna},
  booktitle = {Proceedings of the 2019 Conference on Empirical Methods in Natural Language Processing},
  year = {2019},
  url = {https://arxiv.org/abs/1908.10084}
}"""
