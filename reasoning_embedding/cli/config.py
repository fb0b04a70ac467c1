"""``rembed config``: check, show, compare and document configuration files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reasoning_embedding.errors import ConfigError, InputError

from ._app import Overrides, add, make_app
from ._terminal import difference_lines, next_command

if TYPE_CHECKING:
    from reasoning_embedding.config.reading.loading import Config

app = make_app("Check, show, compare and document configuration files; without --data never imports torch.")

_File = Annotated[Path, typer.Argument(help="A YAML file.", metavar="FILE")]


def check(
    paths: Annotated[
        list[str],
        typer.Argument(help="YAML files, folders of them, and overrides.", metavar="PATH|KEY=VALUE"),
    ],
    data: Annotated[
        bool, typer.Option("--data", help="Read the data of runs and look at their backbones, too.")
    ] = False,
) -> None:
    """Check files (and every .yaml below folders); print every problem with its file and line.

    With --data the rows of every file of kind run are read, and their lengths and the backbone looked at, as training
    would find them.

    Raises
    ------
    ConfigError
        With the problems of all files.
    """
    from reasoning_embedding.config import RunConfig, load_config
    from reasoning_embedding.config.reading.overrides import is_override

    overrides = [item for item in paths if is_override(item) and not _is_there(item)]
    files = _files([Path(item) for item in paths if item not in overrides])
    problems: list[str] = []
    for file in files:
        try:
            loaded = load_config(file, overrides)
        except ConfigError as error:
            problems += [problem for problem in error.problems if problem not in problems]
        else:
            typer.echo(f"{file}: ok ({loaded.config.kind})")
            if data:
                _look_at(loaded.config)
    if problems:
        raise ConfigError(problems)
    if len(files) == 1 and isinstance(loaded.config, RunConfig):
        next_command("config check --data" if data else "config check", config=files[0])


def _is_there(word: str) -> bool:
    try:
        return Path(word).exists()
    except OSError:  # longer than a path can be
        return False


def _look_at(settings: Config) -> None:
    from reasoning_embedding.config import RunConfig

    if not isinstance(settings, RunConfig):
        typer.echo("  data: looked at in files of kind run only")
        return
    from ._terminal import silence_libraries

    silence_libraries()
    from reasoning_embedding.planning.draft import look_at_inputs

    for line in look_at_inputs(settings):
        typer.echo(f"  {line}")


def _files(paths: list[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        inside = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]
        # Files of a folder `accelerate` are the launcher's, and it checks them itself.
        inside = [file for file in inside if file == path or file.parent.name != "accelerate"]
        if not inside:
            raise InputError("no .yaml file in this folder", where=str(path))
        files += [file for file in inside if file not in files]
    if not files:
        raise InputError("name at least one file", todo="rembed config check configs/*.yaml")
    return files


def show(
    path: _File,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON instead of YAML.")] = False,
) -> None:
    """Print a configuration with `extends`, overrides, variables and every default filled in."""
    from reasoning_embedding.config import load_config, resolved_json, to_yaml

    config = load_config(path, overrides or []).config
    text = json.dumps(resolved_json(config), indent=1, ensure_ascii=False) if as_json else to_yaml(config)
    typer.echo(text.rstrip("\n"))


def diff(
    a: Annotated[Path, typer.Argument(help="A YAML file.", metavar="A")],
    b: Annotated[Path, typer.Argument(help="Another one.", metavar="B")],
) -> None:
    """Print what differs between two configurations, every default filled in: key, value of A, value of B."""
    from reasoning_embedding.config import diff as differences
    from reasoning_embedding.config import load_config

    found = differences(load_config(a).config, load_config(b).config)
    typer.echo("\n".join(difference_lines(found)) or "no difference")


def schema(
    kind: Annotated[str, typer.Argument(help="run, lineage, experiment, merge or sweep.")] = "experiment",
) -> None:
    """Print the JSON schema of a kind of file, for editors that complete and check YAML.

    Raises
    ------
    InputError
        If there is no such kind.
    """
    from reasoning_embedding.config.json_schema import json_schema
    from reasoning_embedding.config.reading.loading import KINDS
    from reasoning_embedding.config.reading.suggestions import did_you_mean

    if kind not in KINDS:
        hint = did_you_mean(kind, KINDS)
        raise InputError(f"no kind {kind!r}; there are {', '.join(KINDS)}{hint}")
    typer.echo(json.dumps(json_schema(KINDS[kind]), indent=1, ensure_ascii=False))


for _verb in (check, show, diff, schema):
    add(app, _verb, _verb.__name__)
