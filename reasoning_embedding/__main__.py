"""``python -m reasoning_embedding``: what ``accelerate launch -m`` and ``torchrun -m`` start."""

from reasoning_embedding.cli.main import main

if __name__ == "__main__":
    main()
