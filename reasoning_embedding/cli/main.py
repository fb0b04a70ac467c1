"""``rembed``: the verbs, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from reasoning_embedding import __version__
from reasoning_embedding.orphans import end_with_parent

from ._app import add, handled, make_app

#: Verb -> module. A module has either a function ``command`` or, for a group of verbs, an ``app``.
#: Modules of verbs import nothing heavy at their top: ``--help`` reads them all.
VERBS: dict[str, str] = {
    "quickstart": "reasoning_embedding.cli.quickstart",
    "init": "reasoning_embedding.cli.init",
    "train": "reasoning_embedding.cli.train",
    "plan": "reasoning_embedding.cli.plan",
    "evaluate": "reasoning_embedding.cli.evaluate",
    "analyze": "reasoning_embedding.cli.analyze",
    "track": "reasoning_embedding.cli.track",
    "embed": "reasoning_embedding.cli.embed",
    "report": "reasoning_embedding.cli.report",
    "merge": "reasoning_embedding.cli.merge",
    "publish": "reasoning_embedding.cli.publish",
    "grow": "reasoning_embedding.cli.grow",
    "data": "reasoning_embedding.cli.data",
    "experiment": "reasoning_embedding.cli.experiment",
    "sweep": "reasoning_embedding.cli.sweep",
    "config": "reasoning_embedding.cli.config",
    "runs": "reasoning_embedding.cli.runs",
    "doctor": "reasoning_embedding.cli.doctor",
}


class _Verbs(TyperGroup):
    """A group that imports the module of a verb when the verb is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the verbs in the order of the help."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import a verb; None when there is no such verb."""
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(VERBS[cmd_name])
        app = getattr(module, "app", None)
        if app is None:
            app = make_app()
            add(app, module.command, cmd_name)
        command = typer.main.get_command(app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Let the parent's suggestions see the verbs, which are not imported yet."""
        self.commands = dict.fromkeys(VERBS)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb; a user's mistake ends with a message and its exit code."""
        with handled():
            return super().invoke(ctx)


app = make_app("Text embedders grown from decoder language models: train, track, compare.", completion=True)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"reasoning-embedding {__version__}")
        raise typer.Exit


@app.callback(cls=_Verbs)
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not say which command may come next.")
    ] = False,
) -> None:
    if quiet:
        from ._terminal import be_quiet

        be_quiet()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 2 bad input or usage, 3 machine, 130 Ctrl-C, 1 otherwise.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after the program's name; absent: those of the process.
    """
    end_with_parent()
    app(args=None if arguments is None else list(arguments), prog_name="rembed")
