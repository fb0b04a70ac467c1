"""Errors a user can act on: each says what, where and what to do, and carries its exit code."""

from __future__ import annotations


class ReasoningEmbeddingError(Exception):
    """Base of every error raised on purpose; the command line prints it without a traceback.

    Parameters
    ----------
    what : str
        What is wrong, in one sentence.
    where : str, optional
        The place: ``file:line``, a row, a step, a tensor name.
    todo : str, optional
        What the user can do about it.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, todo: str | None = None) -> None:
        self.what, self.where, self.todo = what, where, todo
        super().__init__(what)

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}\n  -> {self.todo}" if self.todo else text


class InputError(ReasoningEmbeddingError):
    """The user's input (config, data, arguments) is wrong. Exit code 2."""

    exit_code = 2


class ConfigError(InputError):
    """A configuration file does not describe a valid run; carries every problem found."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''} in the configuration"
        super().__init__("\n".join([count, *(f"  {problem}" for problem in problems)]))


class SetupError(ReasoningEmbeddingError):
    """The machine lacks something: a library, a device, disk space, a launcher. Exit code 3."""

    exit_code = 3


class ContractError(InputError):
    """A backbone or checkpoint breaks the attention or the input contract."""


class TrainingError(ReasoningEmbeddingError):
    """Training cannot go on (a loss that is not finite, a failed rank). Exit code 1."""


class QualityGateError(ReasoningEmbeddingError):
    """A grown backbone misses its quality gate, so what follows would teach nothing. Exit code 1."""
