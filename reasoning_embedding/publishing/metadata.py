"""The YAML at the head of a model card, which the Hub indexes a model by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reasoning_embedding.checkpoints.scores import WHILE_TRAINING
from reasoning_embedding.errors import InputError

from .facts import Facts


def metadata(facts: Facts) -> str:
    """Return the YAML that the Hub indexes a model by.

    Raises
    ------
    InputError
        If the Hub's client refuses a value.
    """
    from huggingface_hub import ModelCardData

    scores = facts.scores.get(facts.revision.name)
    results = _eval_results(scores) if scores else None
    base = facts.base_models
    data = ModelCardData(
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=["sentence-transformers", "feature-extraction", "dense", "reasoning-embedding"],
        license=facts.about.license,
        language=list(facts.about.languages) or None,
        base_model=(base if len(base) > 1 else base[0]) if base else None,
        base_model_relation=("merge" if facts.merged else "finetune") if base else None,
        datasets=_hub_datasets(facts) or None,
        model_name=facts.release.repo if results else None,
        eval_results=results,
    )
    try:
        return data.to_yaml()
    except ValueError as error:
        raise InputError(f"the card's metadata cannot be written: {error}") from error


def _hub_datasets(facts: Facts) -> list[str]:
    hub = [source["dataset"] for source in facts.sources if source.get("kind") == "hub"]
    return [name for name in dict.fromkeys(hub) if name.count("/") <= 1 and not Path(name).exists()]


def _eval_results(scores: dict[str, Any]) -> Any:
    from huggingface_hub import EvalResult

    return [
        EvalResult(
            task_type=str(entry.get("type", "Retrieval")),
            dataset_type=str(entry["task"]),
            dataset_name=str(entry["task"]),
            metric_type=str(entry.get("main_metric", "ndcg_at_10")),
            metric_value=round(float(entry["main_score"]), 6),
        )
        for entry in scores["tasks"]
        if entry.get("main_score") is not None and not entry.get(WHILE_TRAINING)
    ] or None
