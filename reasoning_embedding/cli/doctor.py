"""``rembed doctor``: what works on this machine."""

from __future__ import annotations

from reasoning_embedding.errors import SetupError

from ._terminal import next_command

_COLOURS = {"ok": "green", "absent": "yellow", "problem": "red"}


def command() -> None:
    """Say what works on this machine, what is absent, and what to do about it.

    Raises
    ------
    SetupError
        If a piece is broken that everything needs.
    """
    from rich.console import Console
    from rich.markup import escape

    from ._doctor_checks import CHECKS

    console = Console(soft_wrap=True, highlight=False)
    broken: list[str] = []
    for check in CHECKS:
        for finding in check():
            console.print(
                f"[{_COLOURS[finding.state]}]{finding.state:<8}[/] {finding.name:<14} {escape(finding.detail)}"
            )
            if finding.todo:
                console.print(f"{'':<8} {'':<14} -> {escape(finding.todo)}")
            if finding.state == "problem" and finding.core:
                broken.append(finding.name)
    if broken:
        raise SetupError(
            f"{', '.join(broken)} must work before anything else does", todo="follow the arrows above"
        )
    next_command("doctor")
