"""``rembed quickstart``: the embedded default, no download and no GPU."""

from __future__ import annotations

from pathlib import Path

from reasoning_embedding.errors import SetupError

from ._app import Overrides


def command(
    overrides: Overrides = None,
) -> None:
    """Grow three sibling backbones, train an embedder on each, compare them, and make the page.

    Raises
    ------
    ReasoningEmbeddingError
        When a stage fails; finished stages are kept.
    """
    from .experiment import command as run_experiment

    run_experiment(shipped_config("quickstart.yaml"), overrides)


def shipped_config(name: str) -> Path:
    """Return a configuration that comes with the package, from the checkout or from the installed wheel.

    Raises
    ------
    SetupError
        If it is in neither place.
    """
    package = Path(__file__).parent.parent
    for folder in (package.parent / "configs", package / "_configs"):
        if (folder / name).is_file():
            return folder / name
    raise SetupError(f"the configuration {name} is not installed", todo="install the package again")
