"""``rembed publish``: a checkpoint, or a whole run, to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_folder


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
    from reasoning_embedding.config.references import is_hub_id, parse
    from reasoning_embedding.publishing.card import CARD
    from reasoning_embedding.publishing.export import export
    from reasoning_embedding.publishing.facts import About
    from reasoning_embedding.publishing.release import FOLDER, ReleaseRecord, files_in, plan_release
    from reasoning_embedding.publishing.verify import verify

    say = speaker()
    about = About(license, tuple(language or ()), base_model)
    folder, chosen = _chosen(path, step, allow_untrained=allow_untrained)
    if output is None and is_hub_id(parse(path).name) and not Path(path).exists():
        output = Path(FOLDER) / repo  # beside nothing: a download lies in a cache
    release = plan_release(folder, repo, step=chosen, all_steps=all_steps, tags=tag, output=output)
    require_folder(release.folder)
    hub = None
    if push:  # before the work: a token that is no good costs no minutes
        from reasoning_embedding.publishing.hub import Hub, find_token

        hub = Hub(repo, find_token(token_env), report=say)
        hub.check_access()
    export(release, about, say)
    record = ReleaseRecord(release.folder)
    verify(release, record, say)
    main = release.exported(release.main)
    typer.echo(f"card: {main / CARD}")
    if hub is None:
        for name, file in files_in(main).items():
            typer.echo(f"  {file.stat().st_size:>15,}  {name}")
        names = ", ".join(item.name for item in release.steps)
        typer.echo(f"  {'tags' if tag else 'branches'}: {names or 'none but main'}")
        typer.echo(f"nothing was uploaded: --push brings {release.folder} to {repo}")
        next_command("publish")
        return
    from reasoning_embedding.publishing.push import push as upload

    upload(release, hub, record, private=private, overwrite=overwrite, report=say)
    typer.echo(f"published: {hub.endpoint}/{repo}")
    next_command("publish --push", repo=repo)


def _chosen(reference: str, step: str | None, *, allow_untrained: bool) -> tuple[Path, int | None]:
    """Return a run's folder and the step that becomes main, or a lone checkpoint's folder and None.

    Step 0 is published where it is asked for by its number, or where an untrained model is allowed.
    """
    from reasoning_embedding.checkpoints.references import pick_step, resolve, series_of_steps
    from reasoning_embedding.config.references import parse

    def trained(number: int | None, chosen: str) -> int | None:
        if number == 0 and not allow_untrained:
            raise InputError(
                f"the {chosen} step of this run is 0, the model before training",
                where=reference,
                todo="look at its scores (rembed runs show), train longer, name a later --step, "
                "or give --allow-untrained",
            )
        return number

    run = series_of_steps(reference)
    if run is not None:
        chosen = step or ("best" if run.best.exists() else "last")
        number = pick_step(run, chosen, f"{reference}@{chosen}")
        return run.path, number if chosen in ("0", "first") else trained(number, chosen)
    model = resolve(reference)
    if step is not None:
        what = "this is one step" if model.run else "this is one checkpoint, not a run"
        raise InputError(what, where=reference, todo="leave --step out")
    if model.run is None:
        return model.files, None
    at = parse(reference).at
    return model.run.path, trained(model.step, at) if at in ("best", "last") else model.step
