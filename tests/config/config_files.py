"""Small configuration files that the tests of config/ and cli/ break on purpose."""

RUN = """\
kind: run
name: demo
backbone:
  kind: random
  tokenizer: some/folder
data:
  sources:
    - kind: files
      path: rows.jsonl
training:
  steps: 10
"""

EXPERIMENT = """\
kind: experiment
name: demo
lineage:
  tokenizer: {kind: world}
  stages:
    - kind: pretrain
      name: base
      learning_rate: 3e-3
      steps: 10
      batch_size: 4
      architecture: {hidden_size: 32}
      corpus: {kind: world}
    - kind: sft
      name: sft
      parent: base
      learning_rate: 1e-3
      steps: 5
      batch_size: 4
recipe:
  data:
    sources:
      - kind: world
  training:
    betas: [0.9, 0.95]
    lora: {target_modules: [q_proj]}
runs:
  - {name: one, backbone: base}
  - {name: two, backbone: sft, seed: 1}
evaluation:
  tasks: [{kind: world}]
  steps: [0, 5]
analysis:
  probe: {kind: world}
  pairs:
    - {name: p, a: "there/theone", b: "run:two@last"}
  realignment:
    - {name: r, run: one, against: first}
  seed_band: p
"""
