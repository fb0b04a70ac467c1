"""Which instruction reaches which text: precedence, sides and subsets."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.abs_encoder import get_prompt_name
from mteb.types import PromptType

from reasoning_embedding.errors import InputError
from reasoning_embedding.evaluation.asking import Asking, ModelPrompts, prompts_known_to_mteb
from reasoning_embedding.evaluation.encoder import MtebEncoder, model_meta
from reasoning_embedding.evaluation.instructions import Instructions
from reasoning_embedding.evaluation.tasks.local import local_metadata

QUERY, DOCUMENT = PromptType.query, PromptType.document
TEMPLATE = "I: {instruction} Q: "


def metadata(name: str = "pets", kind: str = "Retrieval", instruction: str | None = "own") -> TaskMetadata:
    return local_metadata(
        name, kind, "1", main_score="ndcg_at_10", instruction=instruction, description="Of a test."
    )


#: Every key that fits queries of subset ``en`` of task ``pets``, the first to be taken first.
ORDER = [
    "pets:en-query",
    "pets:en",
    "pets-query",
    "pets",
    "Retrieval-query",
    "Retrieval",
    "query",
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_the_more_exact_key_decides(first: int) -> None:
    given = {key: f"by {key}" for key in reversed(ORDER[first:])}
    instructions = Instructions(given)
    assert instructions.for_task(metadata(), "en", QUERY) == f"by {ORDER[first]}"
    other = next((key for key in ORDER[first:] if ":" not in key), None)
    assert instructions.for_task(metadata(), "de", QUERY) == f"by {other}", "not its subset"


def test_without_any_key_the_task_asks_as_it_is() -> None:
    instructions = Instructions({"fish": "other", "STS": "other"})
    assert instructions.for_task(metadata(), "default", QUERY) == "own"
    assert instructions.for_task(metadata(instruction=None), "default", QUERY) == ""
    assert Instructions({"pets": ""}).for_task(metadata(), "default", QUERY) == "", "none is an instruction"


def test_tasks_of_mteb_ask_with_their_prompts() -> None:
    none = Instructions()
    banking = mteb.get_task("Banking77Classification").metadata
    assert none.for_task(banking) == banking.prompt != ""
    biology = mteb.get_task("BrightBiologyRetrieval").metadata
    assert none.for_task(biology, "default", QUERY) == biology.prompt["query"]
    assert none.for_task(biology, "default", DOCUMENT) == ""
    unasked = next(
        task.metadata
        for task in mteb.get_tasks(task_types=["STS"], languages=["eng"])
        if not task.metadata.prompt
    )
    assert none.for_task(unasked) == AbsTaskSTS.abstask_prompt, "the default of its type"
    assert Asking().identity(biology, "default") == ({"query": biology.prompt["query"]}, {})
    assert Asking().identity(banking, "default") == ({"text": banking.prompt}, {})


def test_documents_are_asked_only_where_it_is_said() -> None:
    assert Instructions({"pets": "x", "Retrieval": "x"}).for_task(metadata(), "default", DOCUMENT) == ""
    both = Instructions({"pets": {"query": "find", "document": "a page: "}})
    assert both.prompt(metadata(), "default", QUERY, TEMPLATE) == "I: find Q: "
    assert both.prompt(metadata(), "default", DOCUMENT, TEMPLATE) == "a page: ", "not a query"
    assert Asking(both).identity(metadata(), "default") == ({"query": "find", "document": "a page: "}, {})
    assert Instructions({"document": "page"}).for_task(metadata(), "default", DOCUMENT) == "page"


def test_texts_without_a_side_take_the_instruction_of_queries() -> None:
    assert Instructions({"pets": {"query": "alike"}}).for_task(metadata(kind="STS"), "default") == "alike"
    assert Instructions().prompt(metadata(kind="STS"), "default", None, TEMPLATE) == "I: own Q: "


class Recorder:
    """Keeps the prompt of every text."""

    dimension = 4

    def __init__(self) -> None:
        self.prompts: dict[str, str] = {}

    def encode(self, texts: Sequence[str], *, prompt: str = "", **_: Any) -> np.ndarray:
        self.prompts |= dict.fromkeys(texts, prompt)
        rows = np.array([[len(text), text.count("e"), text.count("a"), 1] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class TwoLanguages(AbsTaskSTS):
    """Similarity in two subsets."""

    metadata = metadata("two", "STS", None).model_copy(
        update={"eval_langs": {"en": ["eng-Latn"], "de": ["deu-Latn"]}, "main_score": "cosine_spearman"}
    )

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        """Make the pairs."""
        texts = {"en": ["a cat", "a dog here", "tree", "sea"], "de": ["Katze", "Hund hier", "Baum", "See"]}
        self.dataset = {
            subset: DatasetDict(
                test=Dataset.from_dict({"sentence1": words, "sentence2": words[::-1], "score": [1, 2, 3, 4]})
            )
            for subset, words in texts.items()
        }
        self.data_loaded = True


def test_an_instruction_for_a_subset_reaches_its_texts_and_no_others() -> None:
    recorder = Recorder()
    encoder = MtebEncoder(
        recorder,
        model_meta("recorder", "1"),
        asking=Asking(Instructions({"two:de": "Finde", "STS": "Match"}), template=TEMPLATE),
    )
    TwoLanguages().evaluate(encoder, "test", encode_kwargs={"batch_size": 2, "show_progress_bar": False})
    german = {"Katze", "Hund hier", "Baum", "See"}
    assert {text: recorder.prompts.pop(text) for text in german} == dict.fromkeys(german, "I: Finde Q: ")
    assert set(recorder.prompts) == {"a cat", "a dog here", "tree", "sea"}
    assert set(recorder.prompts.values()) == {"I: Match Q: "}


def test_keys_that_no_task_has_are_refused() -> None:
    Instructions({"pets": "x", "Banking77Classification": "x", "Retrieval-document": "x"}).check(["pets"])
    Instructions({"pets:en-query": "x", "number-sequences": "x"}).check(["pets", "number-sequences"])
    for key, hint in (("pet", "'pets'"), ("Banking7Classification", "'Banking77Classification'")):
        with pytest.raises(InputError, match=f"did you mean {hint}"):
            Instructions({key: "x"}).check(["pets"])
    with pytest.raises(InputError, match="did you mean 'Retrieval'"):
        Instructions({"retrieval-query": "x"}).check(["pets"])


def test_instructions_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps({"pets": {"document": "page"}, "STS": "alike"}), encoding="utf-8")
    instructions = Instructions(str(path))
    assert instructions.for_task(metadata(), "default", DOCUMENT) == "page"
    assert instructions.for_task(metadata(), "default", QUERY) == "own"
    with pytest.raises(InputError, match=r"instructions\.json: 'pets' is no task"):
        instructions.check(["fish"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"pets":\n x}', "json:2: not JSON"),
        ("[]", "a JSON object was expected"),
        ('{"pets": 1}', "'pets' is not a string"),
        ('{"pets": {"querry": "x"}}', "a side 'querry'; did you mean 'query'"),
        ('{"pets": {"query": null}}', "'pets' is not a string"),
        (None, "cannot be read"),
    ],
)
def test_faulty_files_are_said(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "instructions.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        Instructions(str(path))


#: What a model has prompts for, and who is asked: side of the text -> what stands before it.
MODELS: dict[str, tuple[ModelPrompts | None, dict[PromptType | None, str]]] = {
    "no prompts": (None, {QUERY: "I: own Q: ", DOCUMENT: "", None: "I: own Q: "}),
    "by side": (ModelPrompts({"query": "q: ", "document": "d: "}), {QUERY: "q: ", DOCUMENT: "d: ", None: ""}),
    "by task": (ModelPrompts({"pets": "p: ", "query": "q: "}), {QUERY: "p: ", DOCUMENT: "p: ", None: "p: "}),
    "by type": (ModelPrompts({"Retrieval-query": "r: "}), {QUERY: "r: ", DOCUMENT: "", None: ""}),
    "a default": (ModelPrompts({}, default="all: "), {QUERY: "all: ", DOCUMENT: "all: ", None: "all: "}),
    "none of its own": (ModelPrompts({}), {QUERY: "", DOCUMENT: "", None: ""}),
    "trained with one": (
        ModelPrompts({"query": "t: "}, made_here=True),
        {QUERY: "t: ", DOCUMENT: "", None: ""},
    ),
    "trained with none": (ModelPrompts({"query": ""}, made_here=True), {QUERY: "", DOCUMENT: "", None: ""}),
    "trained with several": (
        ModelPrompts({"query": "", "document": "", "a": "a: ", "b": "b: "}, made_here=True),
        {QUERY: "I: own Q: ", DOCUMENT: "", None: "I: own Q: "},
    ),
    "trained on its namesake": (
        ModelPrompts({"pets": "p: ", "b": "b: "}, made_here=True),
        {QUERY: "p: ", DOCUMENT: "", None: "p: "},
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_models_own_prompt_comes_before_the_tasks_instruction(name: str) -> None:
    own, expected = MODELS[name]
    asking = Asking(own=own, template=TEMPLATE)
    said = Asking(Instructions({"pets": "said", "document": ""}), own, TEMPLATE)
    for side, prompt in expected.items():
        assert asking.prompt(metadata(), "default", side) == prompt
        found = "" if side == DOCUMENT else "I: said Q: "
        assert said.prompt(metadata(), "default", side) == found, "what the user says comes first"


def test_prompts_of_a_model_of_others_are_those_that_mteb_sends() -> None:
    own = {
        name: name
        for name in ("pets-query", "pets", "Retrieval-document", "Retrieval", "STS", "query", "document")
    }
    for left_out in range(len(own)):
        given = dict(list(own.items())[left_out:])
        for kind, side in (("Retrieval", QUERY), ("Retrieval", DOCUMENT), ("STS", None)):
            task = metadata(kind=kind)
            expected = get_prompt_name(given, task, side)
            assert ModelPrompts(given).find(task, side) == (expected if expected is None else given[expected])


def test_prompts_that_only_mteb_knows_are_found_without_a_network() -> None:
    found = prompts_known_to_mteb("intfloat/multilingual-e5-small")
    assert found is not None
    assert (found.find(metadata(), QUERY), found.find(metadata(), DOCUMENT)) == ("query: ", "passage: ")
    assert prompts_known_to_mteb("nobody/knows-this") is None
