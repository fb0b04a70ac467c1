"""``rembed data``: mine hard negatives, score rows by a teacher, filter rows, describe a data set, prepare a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from reasoning_embedding.errors import InputError
from reasoning_embedding.files import require_folder, require_output_file

from ._app import Overrides, add, make_app
from ._terminal import next_command, silence_libraries, speaker

app = make_app(
    "Training data: mine hard negatives, score by a teacher, filter, describe a data set, prepare a cache."
)

Rows = Annotated[
    Path,
    typer.Argument(
        help="Rows (JSONL, .gz too, parquet, or a folder of them), or the YAML file of a run.", metavar="ROWS"
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", help="Rows are written here: .jsonl or .jsonl.gz.")]
Model = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="A checkpoint, any SentenceTransformer (folder or Hub id), or bm25."),
]
Revision = Annotated[str | None, typer.Option(help="Of a Hub id.")]
Corpus = Annotated[
    Path | None, typer.Option(help='Documents, {"_id": id, "text": text} a line; absent: those of the rows.')
]
Faiss = Annotated[
    str | None, typer.Option(metavar="INDEX", help="Search with FAISS: Flat, HNSW32, IVF1024,Flat, ...")
]
MaxTokens = Annotated[
    int | None, typer.Option(min=1, help="Longer texts are cut. Absent: at the model's own limit.")
]
Template = Annotated[str | None, typer.Option(help="Prompt of a query with an instruction, for the model.")]
DocumentPrompt = Annotated[str, typer.Option(help="Put before every document, for the model.")]
Tokenizer = Annotated[str | None, typer.Option(help="A folder or Hub id: lengths are its tokens.")]


def mine(
    rows: Rows,
    output: Output,
    model: Model = None,
    revision: Revision = None,
    corpus: Corpus = None,
    negatives: Annotated[int, typer.Option("--negatives", "-k", min=1, help="Most negatives a row.")] = 7,
    ranks: Annotated[
        str, typer.Option(metavar="FIRST-LAST", help="Window of ranks, positives left out.")
    ] = "1-100",
    positive_share: Annotated[
        float,
        typer.Option(help="A negative scores at most this share of the lowest positive; 0: no such rule."),
    ] = 0.95,
    margin: Annotated[
        float | None, typer.Option(help="A negative scores at least this much less than the lowest positive.")
    ] = None,
    max_score: Annotated[float | None, typer.Option(help="Highest score of a negative.")] = None,
    min_score: Annotated[float | None, typer.Option(help="Lowest score of a negative.")] = None,
    sample: Annotated[
        bool, typer.Option("--sample", help="A sample of those that pass, not the best.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the sample.")] = 0,
    faiss: Faiss = None,
    max_tokens: MaxTokens = None,
    query_template: Template = None,
    document_prompt: DocumentPrompt = "",
) -> None:
    """Give every row hard negatives that a model ranks high, and keep the scores.

    Positives of the same query, and texts that read like one, are never mined. A stopped command goes on when it
    is given again.

    Raises
    ------
    InputError
        If rows, corpus, model or rules cannot be used, or the output exists and this command did not make it.
    SetupError
        If a library is missing or the output cannot be written.
    """
    require_output_file(output)
    window = _window(ranks)
    if model is None:
        raise InputError(
            "no model is named", where="--model", todo="name a checkpoint, a SentenceTransformer or bm25"
        )
    silence_libraries()
    from reasoning_embedding import api

    found = api.mine(
        rows,
        output,
        model,
        revision=revision,
        corpus=corpus,
        negatives=negatives,
        ranks=window,
        positive_share=positive_share,
        margin=margin,
        max_score=max_score,
        min_score=min_score,
        sample=sample,
        seed=seed,
        faiss=faiss,
        max_tokens=max_tokens,
        query_template=query_template,
        document_prompt=document_prompt,
        report=speaker(),
    )
    typer.echo(
        f"{found.rows:,} rows, {found.negatives / found.rows:.2f} negatives a row, "
        f"{found.rows_without_negatives:,} rows without; mean score of positives "
        f"{found.mean_positive_score:.4f}, of negatives {found.mean_negative_score:.4f}"
    )
    typer.echo(f"rows: {output}")
    next_command("data mine", rows=output)


def score(
    teacher: Annotated[
        str,
        typer.Argument(
            help="A checkpoint, any SentenceTransformer or CrossEncoder (folder or Hub id), or bm25.",
            metavar="MODEL",
        ),
    ],
    rows: Rows,
    output: Output,
    vectors: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Also write the texts' vectors, for distillation from vectors."),
    ] = None,
    max_tokens: MaxTokens = None,
    query_template: Template = None,
    query_prompt: Annotated[
        str | None, typer.Option(help="Put before every query. Absent: the model's own prompt.")
    ] = None,
    document_prompt: Annotated[
        str | None, typer.Option(help="Put before every document. Absent: the model's own prompt.")
    ] = None,
) -> None:
    """Give every row a teacher's scores of its positives and negatives (pos_scores, neg_scores).

    An embedder's score is the cosine, a cross-encoder's its logit. A stopped command goes on when it is given again.

    Raises
    ------
    InputError
        If rows or model cannot be used, or the output exists and this command did not make it.
    SetupError
        If a library is missing, the Hub cannot be reached or the output cannot be written.
    """
    require_output_file(output)
    silence_libraries()
    from reasoning_embedding.preparing.files import data_section
    from reasoning_embedding.preparing.scoring import Teacher, score_file

    asked = Teacher(teacher, max_tokens, query_template, query_prompt, document_prompt)
    found = score_file(data_section(rows), output, asked, vectors=vectors, report=speaker())
    positive, negative = (
        "-" if value is None else f"{value:.4f}"
        for value in (found["mean_positive_score"], found["mean_negative_score"])
    )
    typer.echo(
        f"{found['pairs']:,} pairs of {found['rows']:,} rows scored by {found['teacher']['score']}: mean of positives "
        f"{positive}, of negatives {negative}"
    )
    typer.echo(f"rows: {output}")
    next_command("data score")


def filter_(
    rows: Rows,
    output: Output,
    min_length: Annotated[
        int | None, typer.Option(help="Of a query and a positive, in characters or tokens.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(help="Of a query and a positive.")] = None,
    tokenizer: Tokenizer = None,
    duplicates: Annotated[
        bool, typer.Option("--duplicates", help="Drop rows that repeat an earlier one.")
    ] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Drop those that nearly repeat one, too.")
    ] = False,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(metavar="FOLDER", help="Drop rows with a text of this BEIR folder; may be given again."),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Least lead of the lowest positive over the best negative.")
    ] = None,
    consistency: Annotated[
        int | None, typer.Option(metavar="K", min=1, help="A positive must be among the K best documents.")
    ] = None,
    model: Model = None,
    revision: Revision = None,
    corpus: Corpus = None,
    faiss: Faiss = None,
    max_tokens: MaxTokens = None,
    query_template: Template = None,
    document_prompt: DocumentPrompt = "",
) -> None:
    """Drop rows by length, duplication, contamination, margin and consistency; count them by reason.

    The margin uses the rows' own scores, or those of --model.

    Raises
    ------
    InputError
        If rows, model or rules cannot be used, nothing would be left, or the output exists.
    SetupError
        If the output cannot be written.
    """
    require_output_file(output)
    silence_libraries()
    from reasoning_embedding.preparing.files import data_section
    from reasoning_embedding.preparing.filtering import FilterRule, filter_file
    from reasoning_embedding.preparing.search import named_searcher

    repeats: Literal["exact", "near"] | None = "near" if near_duplicates else "exact" if duplicates else None
    rule = FilterRule(
        min_length, max_length, tokenizer, repeats, tuple(decontaminate or ()), margin, consistency
    )
    searcher = None
    if model is not None:
        searcher = named_searcher(
            model,
            revision=revision,
            faiss=faiss,
            max_tokens=max_tokens,
            query_template=query_template,
            document_prompt=document_prompt,
        )
    found = filter_file(data_section(rows), output, rule, searcher=searcher, corpus=corpus, report=speaker())
    typer.echo(f"{found['kept']:,} of {found['rows']:,} rows kept: {output}")
    next_command("data filter", rows=output)


def stats(
    rows: Rows,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for statistics.json and a page.", metavar="DIR"),
    ] = None,
    tokenizer: Tokenizer = None,
    model: Model = None,
    revision: Revision = None,
    max_tokens: MaxTokens = None,
    query_template: Template = None,
    document_prompt: DocumentPrompt = "",
) -> None:
    """Count rows, lengths, duplicates, suspects of label noise and likely false negatives.

    False negatives are estimated where rows have scores, or with --model.

    Raises
    ------
    InputError
        If rows, tokenizer or model cannot be used.
    SetupError
        If the output cannot be written.
    """
    if output is not None:
        require_folder(output)
    silence_libraries()
    from reasoning_embedding.files import atomic_write, write_json
    from reasoning_embedding.preparing.describing import describe_data
    from reasoning_embedding.preparing.files import data_section
    from reasoning_embedding.preparing.search import named_searcher
    from reasoning_embedding.reports.pages.data import data_page

    searcher = None
    if model is not None:
        searcher = named_searcher(
            model,
            revision=revision,
            max_tokens=max_tokens,
            query_template=query_template,
            document_prompt=document_prompt,
        )
    found = describe_data(data_section(rows), tokenizer=tokenizer, searcher=searcher, report=speaker())
    for line in _statistics_lines(found):
        typer.echo(line)
    if output is not None:
        record, page = output / "statistics.json", output / "index.html"
        write_json(record, found)
        atomic_write(page, data_page(found, rows.name))
        typer.echo(f"written: {record}\nwritten: {page}")
    next_command("data stats", rows=rows)


def prepare(
    config: Annotated[
        Path, typer.Argument(help="The YAML file of a run with data.cache_dir.", metavar="CONFIG")
    ],
    overrides: Overrides = None,
) -> None:
    """Write the texts and tokens of a run to its cache, from where training reads them.

    Raises
    ------
    InputError
        If the configuration has no data.cache_dir, or rows or tokenizer cannot be read.
    SetupError
        If the cache cannot be written.
    """
    from reasoning_embedding.config import RunConfig, load_config

    settings = load_config(config, overrides or (), expect=(RunConfig,)).config
    if settings.data.cache_dir is None:
        raise InputError("there is no folder to prepare", where="data.cache_dir", todo="set it to one")
    require_folder(Path(settings.data.cache_dir).expanduser())
    silence_libraries()
    from reasoning_embedding.backbones import run_readout, run_tokenizer
    from reasoning_embedding.data import load_table, table_tokens
    from reasoning_embedding.progress import Countdown

    report = speaker()
    chosen = run_readout(settings.readout, settings.backbone)
    table = load_table(settings.data, prompts=chosen.prompts)
    report(f"{len(table):,} rows, {len(table.texts):,} distinct texts")
    tokenizer, progress = run_tokenizer(settings.backbone, chosen), Countdown(report, "texts tokenized")
    documents = chosen.prompts.of_documents
    store = table_tokens(table, tokenizer, settings.data, progress, document_prompts=documents)
    report(f"{len(store.values):,} tokens, {store.lengths.mean():.0f} a text: {settings.data.cache_dir}")
    next_command("data prepare", config=config)


def _statistics_lines(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table for the terminal."""
    yield f"{'rows':52s} {found['rows']:>12,}"
    yield f"{'distinct texts':52s} {found['texts']:>12,}"
    for reason, count in found["skipped"].items():
        yield f"{'skipped: ' + reason:52.52s} {count:>12,}"
    for name, count in found["sources"].items():
        yield f"{'source ' + name:52.52s} {count:>12,}"
    header = "".join(f"{name:>9s}" for name in ("mean", "p5", "median", "p95", "max"))
    yield f"{'':24s}{header}"
    for name, values in {**found["lengths"], **found["counts"]}.items():
        label = name if name in found["counts"] else f"{found['unit']} of a {name}"
        yield f"{label:24s}" + "".join(
            f"{values[key]:>9,.1f}" for key in ("mean", "p5", "median", "p95", "max")
        )
    for name, count in found["duplicates"].items():
        yield f"{name:52s} {count:>12,}"
    for name, suspect in found["suspects"].items():
        yield f"{'suspect: ' + name:64s} {suspect['rows']:>12,}"
    if (scores := found["scores"]) is not None:
        share = scores["false_negatives"]
        yield f"{'negatives above 95 % of their positive':52s} {share:>12.2%} of {scores['negatives']:,}"


def _window(ranks: str) -> tuple[int, int]:
    first, dash, last = ranks.partition("-")
    if not (dash and first.isdecimal() and last.isdecimal()):
        raise InputError(
            f"{ranks!r} is no window of ranks", where="--ranks", todo="write FIRST-LAST, such as 10-100"
        )
    return int(first), int(last)


add(app, mine, "mine")
add(app, score, "score")
add(app, filter_, "filter")
add(app, stats, "stats")
add(app, prepare, "prepare")
