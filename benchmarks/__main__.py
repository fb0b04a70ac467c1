"""``python -m benchmarks``: one command a benchmark, and ``all``."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from reasoning_embedding.cli._app import add, handled, make_app

app = make_app("Speed and memory against the libraries one would use instead.")

#: Name -> module:function. A function takes `quick` and `report` and yields one dict a comparison: ``name``,
#: ``ours`` and ``other`` in ``unit``, ``ratio`` (above 1: ours is better), ``memory_ratio`` and its settings;
#: or ``name`` and ``error`` where it failed.
BENCHMARKS: dict[str, str] = {
    "train": "benchmarks.train.compare:bench_train",
    "loss": "benchmarks.loss:bench_loss",
    "encode": "benchmarks.encode:bench_encode",
    "hrsa": "benchmarks.hrsa:bench_hrsa",
    "data": "benchmarks.data:bench_data",
    "start": "benchmarks.start:bench_start",
}
HELP: dict[str, str] = {
    "train": "A training step against SentenceTransformerTrainer at its best loss, chunk and padding.\n\n"
    "Both train the same weights on the same batches of texts from Python's standard library, with the same "
    "dtype and optimizer; loss and gradient are first checked against a float64 oracle (train/exact).",
    "loss": "The tiled loss against MultipleNegativesRankingLoss and its cached form.",
    "encode": "Packed encoding against SentenceTransformer.encode at its best batch size.\n\n"
    "Runs on the corpora of the folder that REASONING_EMBEDDING_DATA names, else on generated text.",
    "hrsa": "Representation analysis against numpy and scikit-learn.",
    "data": "Planning and tokenising a million rows against datasets.map and its shuffle.",
    "start": "Help and the check of a configuration, against the import of sentence-transformers' trainer.",
}

Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Quick = Annotated[bool, typer.Option("--quick", help="Small inputs: a few minutes.")]
Output = Annotated[Path | None, typer.Option("--output", "-o", help="Also write a record as a JSON file.")]


def run_one(name: str, *, json: bool, quick: bool, output: Path | None, **options: Any) -> None:
    """Run one benchmark, print each comparison as it ends, and write the record.

    Parameters
    ----------
    name : str
        A key of :data:`BENCHMARKS`.
    json : bool
        Print JSON objects in the place of sentences.
    quick : bool
        Small inputs.
    output : Path, optional
        File of the record: command, date, versions, hardware, load and results.
    **options
        Further ones of that benchmark.

    Raises
    ------
    InputError
        If the benchmark's data cannot be used.
    SetupError
        If the record cannot be written.
    typer.Exit
        With code 1, after everything else, if a comparison failed.
    """
    from json import dumps

    from benchmarks.record import describe
    from reasoning_embedding.cli._terminal import silence_libraries
    from reasoning_embedding.files import write_json

    silence_libraries()
    record, results = describe(), []
    for result in _comparisons(name, quick=quick, **options):
        results.append(result)
        typer.echo(dumps(result, ensure_ascii=False) if json else _sentence(result))
        if output is not None:  # after each, so that what was measured outlives an interruption
            write_json(output, {**record, "results": results})
    if any("error" in result for result in results):
        raise typer.Exit(1)


def _comparisons(name: str, *, quick: bool, **options: Any) -> Iterator[dict[str, Any]]:
    from reasoning_embedding.errors import ReasoningEmbeddingError

    module, _, function = BENCHMARKS[name].partition(":")
    benchmark = getattr(importlib.import_module(module), function)
    try:
        yield from benchmark(quick=quick, report=lambda line: typer.echo(line, err=True), **options)
    except ReasoningEmbeddingError:
        raise
    except Exception as error:  # noqa: BLE001  (reported as a failed comparison; those before it stand)
        yield {"name": name, "error": f"{type(error).__name__}: {error}"}


def _sentence(result: dict[str, Any]) -> str:
    if "error" in result:
        return f"{result['name']}: FAILED, {result['error']}"
    memory = "" if result["memory_ratio"] is None else f", memory x{result['memory_ratio']:.2f}"
    padding = f", padding x{result['padding']:.1f}" if "padding" in result else ""
    return (
        f"{result['name']}: {result['ours']:.6g} against {result['other']:.6g} {result['unit']}, "
        f"x{result['ratio']:.2f}{memory}{padding}"
    )


def run_all(
    json: Json = False,
    quick: Quick = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for one record a benchmark.", metavar="DIR")
    ] = None,
) -> None:
    """Run every benchmark, each in a process of its own so that memory peaks do not mix.

    Raises
    ------
    typer.Exit
        With code 1, after all have run, if one failed.
    """
    import subprocess
    import sys

    from benchmarks.record import hardware

    # A quick record does not take the place of a whole one.
    kind = ("quick-" if quick else "") + ("cpu" if hardware()["gpu"] is None else "gpu")
    flags = [*(["--json"] if json else []), *(["--quick"] if quick else [])]
    failed = []
    for name in BENCHMARKS:
        command = [sys.executable, "-m", "benchmarks", name, *flags]
        if output is not None:
            command += ["--output", str(output / f"{name}-{kind}.json")]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(1)


def _command(name: str) -> Callable[..., None]:
    def run(json: Json = False, quick: Quick = False, output: Output = None) -> None:
        run_one(name, json=json, quick=quick, output=output)

    run.__doc__ = HELP[name]
    return run


def _train(
    json: Json = False,
    quick: Quick = False,
    output: Output = None,
    model: Annotated[
        str | None,
        typer.Option(help="One shape alone: S, M, or on a GPU Qwen3-0.6B or Qwen3-1.7B.", metavar="SHAPE"),
    ] = None,
) -> None:
    run_one("train", json=json, quick=quick, output=output, model=model)


_train.__doc__ = HELP["train"]
for _name in BENCHMARKS:
    add(app, _train if _name == "train" else _command(_name), _name)
add(app, run_all, "all")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0, 1 where a comparison failed, 2 bad input, 3 machine, 130 Ctrl-C.

    Parameters
    ----------
    arguments : sequence of str, optional
        Words after ``python -m benchmarks``; absent: those of the process.
    """
    with handled():
        app(args=None if arguments is None else list(arguments), prog_name="python -m benchmarks")


if __name__ == "__main__":
    main()
