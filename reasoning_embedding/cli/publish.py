"""``rembed publish``: a checkpoint, or a whole run, to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, a run folder, RUN@STEP, or OWNER/NAME@REVISION that was published from here.",
            metavar="CHECKPOINT|RUN",
        ),
    ],
    repo: Annotated[str, typer.Option(help="Where to.", metavar="ORG/NAME")],
    step: Annotated[
        str | None,
        typer.Option(
            help="Of a run: best, last or a number. Absent: best where the run chose one, else last."
        ),
    ] = None,
    allow_untrained: Annotated[
        bool, typer.Option("--allow-untrained", help="Publish step 0 where it is the best one.")
    ] = False,
    all_steps: Annotated[
        bool, typer.Option("--all-steps", help="Every checkpoint as a revision step-NNNNNN of its own.")
    ] = False,
    tag: Annotated[bool, typer.Option("--tag/--branch", help="What the steps become.")] = False,
    push: Annotated[bool, typer.Option("--push", help="Upload; absent: only export and verify.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what the repository holds from elsewhere.")
    ] = False,
    token_env: Annotated[
        str | None, typer.Option(help="Variable with the token. Absent: HF_TOKEN, or `hf auth login`.")
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of the model as the Hub spells it, such as apache-2.0.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(help="Code of a language, such as en; may be given again.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(help="Hub id of a backbone that was loaded from a folder.", metavar="ORG/NAME"),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Export folder. Absent: RUN/publish/ORG/NAME.")
    ] = None,
) -> None:
    """Export with a model card, verify in a fresh process, and with --push upload what is verified.

    Nothing is uploaded unless the card's own code gives the trainer's embeddings. An upload that stopped goes
    on when the command is given again.

    Raises
    ------
    InputError
        If there is no such checkpoint, it fails the verification, or the repository holds something else.
    SetupError
        If the Hub cannot be reached, fails, or does not accept the token.
    """
    from ._terminal import next_command, silence_libraries, speaker

    silence_libraries()
    from reasoning_embedding import api

    found = api.publish(
        path,
        repo,
        step=step,
        allow_untrained=allow_untrained,
        all_steps=all_steps,
        tags=tag,
        push=push,
        private=private,
        overwrite=overwrite,
        token_env=token_env,
        license=license,
        languages=language or (),
        base_model=base_model,
        output=output,
        report=speaker(),
    )
    typer.echo(f"card: {found.card}")
    if found.url is None:
        for name, size in found.files().items():
            typer.echo(f"  {size:>15,}  {name}")
        names = ", ".join(found.steps)
        typer.echo(f"  {'tags' if tag else 'branches'}: {names or 'none but main'}")
        typer.echo(f"nothing was uploaded: --push brings {found.folder} to {repo}")
        next_command("publish")
        return
    typer.echo(f"published: {found.url}")
    next_command("publish --push", repo=repo)
