"""What is exported and what its card says: names, lineage, licences, escaping, secrets."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest
import yaml
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from reasoning_embedding.checkpoints import content_hash, write_provenance
from reasoning_embedding.checkpoints.scores import write_best
from reasoning_embedding.cli.main import app
from reasoning_embedding.errors import InputError
from reasoning_embedding.files import write_json
from reasoning_embedding.publishing import export, plan_release
from reasoning_embedding.publishing.facts import About
from reasoning_embedding.publishing.markdown import fenced, table, text
from reasoning_embedding.publishing.masking import mask, public, refuse_secrets
from reasoning_embedding.publishing.release import ReleaseRecord, Verified, check_repo_name
from reasoning_embedding.publishing.usage import TITLES, snippets, snippets_of_card
from tests.publishing.published_run import PROMPT, read_jsonl, write_checkpoint, write_modules, write_run

TOKEN = "hf_" + "a1B2" * 8
PNG = b"\x89PNG\r\n\x1a\n rest"


def quiet(line: str) -> None:
    pass


def card(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def metadata(folder: Path) -> dict:
    return yaml.safe_load(card(folder).split("---\n")[1])


@pytest.mark.parametrize("name", ["me/model", "Lab-1/a.b_c-d", "m/x"])
def test_names_the_hub_takes(name: str, tmp_path: Path) -> None:
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(name)
    assert plan_release(write_run(tmp_path / "run").path, name).repo == name


@pytest.mark.parametrize(
    "name",
    [
        "model",
        "me/",
        "/model",
        "a/b/c",
        "me/mo del",
        "me/-x",
        "me/x.",
        "me/a--b",
        "me/a..b",
        "me/x.git",
        "../x/y",
        "me/" + "x" * 97,
        "https://huggingface.co/me/x",
        "me/é",
    ],
)
def test_names_the_hub_refuses_are_refused_here(name: str) -> None:
    with pytest.raises(InputError, match="is no repository name") as caught:
        check_repo_name(name)
    assert caught.value.exit_code == 2
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if name.isascii() and name.count("/") == 1 and not name.endswith("/") and not name.startswith("/"):
        with pytest.raises(HFValidationError):
            validate_repo_id(name)


def test_a_release_of_a_run_has_main_last(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    release = plan_release(run.path, "me/small", step=3, all_steps=True)
    assert [item.name for item in release.revisions] == ["step-000000", "step-000003", "step-000006", "main"]
    assert release.main.checkpoint == run.checkpoint(3)
    assert release.folder == run.path / "publish" / "me" / "small"
    assert plan_release(run.path, "me/small").main.step == 6
    lone = plan_release(run.checkpoint(3), "me/small")
    assert (lone.main.step, lone.run and lone.run.path, lone.steps) == (3, run.path, ())
    with pytest.raises(InputError, match="no checkpoint of step 4"):
        plan_release(run.path, "me/small", step=4)
    with pytest.raises(InputError, match="one checkpoint, not a run"):
        plan_release(run.checkpoint(3), "me/small", all_steps=True)
    with pytest.raises(InputError, match="neither a run nor"):
        plan_release(tmp_path, "me/small")


def test_an_export_is_the_checkpoint_with_card_and_index_and_repeats_to_the_byte(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.checkpoint(6) / "optimizer.pt").write_bytes(b"pickle")
    (run.checkpoint(6) / "modeling.py").write_text("code")
    release = plan_release(run.path, "me/small", all_steps=True)
    export(release, About(), quiet)
    main = release.exported(release.main)
    files = {path.relative_to(main).as_posix(): path for path in main.rglob("*") if path.is_file()}
    assert not {"optimizer.pt", "modeling.py"} & files.keys()
    assert content_hash(main) == content_hash(run.checkpoint(6))
    for name, path in files.items():  # copies: what is edited in the export must not change the run
        assert path.stat().st_nlink == 1, name
        assert not path.is_symlink()
    entries = read_jsonl(files["checkpoints.jsonl"])
    assert [(entry["step"], entry["revision"], entry["scores"]["own"]) for entry in entries] == [
        (0, "step-000000", 0.5),
        (3, "step-000003", 0.53),
        (6, "step-000006", 0.56),
    ]
    assert [entry["main"] for entry in entries] == [False, False, True]
    assert all(len(entry["content_hash"]) == 64 for entry in entries)
    before = {name: path.read_bytes() for name, path in files.items()}
    export(release, About(), quiet)
    assert {name: path.read_bytes() for name, path in files.items()} == before


def test_the_card_says_what_the_model_is_made_of(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.path / "report" / "figures").mkdir(parents=True)
    (run.path / "report" / "figures" / "layers.png").write_bytes(PNG)
    kinds = {"queries": {"texts": 40, "exact": 1, "near": 2, "sources": {}, "examples": []}}
    write_json(run.contamination, {"tasks": {"own": kinds}, "unchecked": {"STS22": "offline"}})
    release = plan_release(run.path, "me/small", all_steps=True)
    export(release, About("apache-2.0", ("en",)), quiet)
    main = release.exported(release.main)
    data, said = metadata(main), card(main)
    assert data["library_name"] == "sentence-transformers"
    assert data["pipeline_tag"] == "sentence-similarity"
    assert (data["license"], data["language"], data["datasets"]) == ("apache-2.0", ["en"], ["lab/pairs"])
    assert (data["base_model"], data["base_model_relation"]) == ("Qwen/Qwen3-0.6B-Base", "finetune")
    result = data["model-index"][0]["results"][0]
    assert (result["dataset"]["name"], result["metrics"][0]["value"]) == ("own", 0.56)
    for words in (
        "transformers >= 5.2",
        "sentence-transformers >= 6.0",
        "| own | ndcg\\_at\\_10 | 0.5600 | 0.5000 |",
        "| hub | lab/pairs | mit |",
        "| files | x.jsonl | unknown |",
        "The licence of 1 of 2 sources is not recorded",
        "| own | queries | 40 | 1 | 2 |",
        "Not checked: STS22",
        "figures/layers.png",
        "| 3 | step-000003 | 0.5300 |",
        "2601.21192",
        "2509.23024",
        "Please cite the base model ([Qwen/Qwen3-0.6B-Base]",
        "How these texts were asked, cut and embedded is not recorded.",
        "## Limits",
        json.dumps(PROMPT),
    ):
        assert words in said, words
    assert (main / "figures" / "layers.png").read_bytes() == PNG
    assert "/srv/me" not in said
    step = card(release.exported(release.steps[0]))
    assert 'revision="step-000000"' in step
    assert "## Checkpoints" not in step


def test_scores_stand_beside_how_they_were_taken(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    path = run.evaluation / "step-000006" / "scores.json"
    scores = json.loads(path.read_text())
    scores["settings"] = {
        "max_tokens": 48,
        "dtype": "bfloat16",
        "readout": {
            "attention": "bidirectional",
            "pooling": "mean",
            "include_prompt": False,
            "end_token": False,
            "heads": [],
            "normalize": True,
        },
        "truncate": 16,
        "quantize": None,
    }
    scores["tasks"][0]["prompts"] = {"default": {"query": "own *words*: ", "document": ""}}
    path.write_text(json.dumps(scores))
    release = plan_release(run.path, "me/small")
    export(release, About(), quiet)
    said = card(release.exported(release.main))
    words = "Texts were cut at 48 tokens, embedded in bfloat16, vectors truncated to 16 dimensions; readout: "
    assert f"{words}bidirectional, mean, prompt out." in said
    assert '- own: queries after "own \\*words\\*: ", documents as they are.' in said
    assert "No score was taken with the model's own prompt query" in said
    scores["tasks"][0]["prompts"]["default"]["query"] = PROMPT
    path.write_text(json.dumps(scores))
    export(release, About(), quiet)
    said = card(release.exported(release.main))
    assert "No score was taken" not in said
    assert "How these texts" not in said


def test_a_figure_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run.path / "report" / "figures").mkdir(parents=True)
    (run.path / "report" / "figures" / "layers.png").write_text("<svg/>")
    with pytest.raises(InputError, match="no PNG"):
        export(plan_release(run.path, "me/small"), About(), quiet)


def test_scores_of_other_weights_are_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", steps=(6,))
    (run.checkpoint(6) / "model.safetensors").write_bytes(b"trained again")
    write_provenance(run.checkpoint(6), kind="contrastive", parent=None, run="small", step=6)
    release = plan_release(run.path, "me/small")
    export(release, About(), quiet)
    assert "This checkpoint was not scored" in card(release.exported(release.main))


def test_a_run_scored_while_it_trained_shows_those_scores(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    shutil.rmtree(run.evaluation)
    lines = [{"step": step, "evaluation": {"tiny": 0.5 + step / 100}} for step in (0, 3, 6)]
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    release = plan_release(run.path, "me/small")
    export(release, About(), quiet)
    said = card(release.exported(release.main))
    assert "| tiny | main score | 0.5600 | 0.5000 |" in said
    assert "while it trained" in said
    assert "model-index" not in said  # no result of this revision that the Hub should list


def test_a_merged_model_names_all_its_parents(tmp_path: Path) -> None:
    parents = [{"path": "lab/one", "revision": "r1"}, {"path": "lab/two", "revision": None}]
    folder = write_checkpoint(tmp_path / "merged", kind="merge", parents=parents, parent=None, method="slerp")
    release = plan_release(folder, "me/merged")
    export(release, About(), quiet)
    main = release.exported(release.main)
    assert metadata(main)["base_model"] == ["lab/one", "lab/two"]
    assert metadata(main)["base_model_relation"] == "merge"
    assert "| made from | lab/one | hub | r1 |" in card(main)
    assert "| method | slerp |" in card(main)


def test_a_checkpoint_without_provenance_is_refused(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    (folder / "provenance.json").unlink()
    with pytest.raises(InputError, match=r"no provenance\.json"):
        export(plan_release(folder, "me/model"), About(), quiet)


def test_provenance_is_published_without_the_publishers_paths(tmp_path: Path) -> None:
    parent = {"path": "/srv/someone/models/base", "revision": None, "content_hash": None}
    folder = write_checkpoint(tmp_path / "model", parent=parent)
    release = plan_release(folder, "me/model")
    export(release, About(base_model="Qwen/Qwen3-4B-Base"), quiet)
    main = release.exported(release.main)
    assert json.loads((main / "provenance.json").read_text())["parent"]["path"] == "base"
    assert "/srv/someone" not in "".join(path.read_text(errors="replace") for path in main.rglob("*.*"))
    assert metadata(main)["base_model"] == "Qwen/Qwen3-4B-Base"


@pytest.mark.parametrize("include", [True, False])
def test_the_code_follows_pooling_prompts_and_dtype(tmp_path: Path, include: bool) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_json(folder / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": include})
    codes = snippets(folder, "me/model", "main")
    assert set(codes) == set(TITLES)
    assert ("kept[:, :" in codes["transformers"]) is not include
    assert 'prompt_name="query"' in codes["sentence-transformers"]
    assert json.dumps(PROMPT) in codes["transformers"]
    assert "float32" not in "".join(codes.values())
    write_json(folder / "config.json", {"dtype": "bfloat16"})
    codes = snippets(folder, "me/model", "step-000003")
    assert 'model_kwargs={"dtype": "float32"}' in codes["sentence-transformers"]
    assert "dtype=torch.float32" in codes["transformers"]
    assert all('revision="step-000003"' in code for code in codes.values())


AWKWARD = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30)
NASTY = st.sampled_from(
    ["```", "\n```\n", '"', '\\"', "\n### With transformers alone\n\n```python\nx\n```\n", "{}", "'''"]
)


@settings(max_examples=40, deadline=None)
@given(prompt=st.lists(AWKWARD | NASTY, max_size=4).map("".join), name=AWKWARD.filter(bool))
def test_no_prompt_breaks_out_of_the_code(prompt: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_modules(Path(folder))
        settings_file = Path(folder) / "config_sentence_transformers.json"
        settings_file.write_text(json.dumps({"prompts": {name: prompt}}))
        codes = snippets(Path(folder), "me/model", "main")
    for code in codes.values():
        compile(code, "card", "exec")
    parts = [f"### {TITLES[library]}\n\n{fenced(code, 'python')}" for library, code in codes.items()]
    assert snippets_of_card("\n\n".join(parts)) == codes


@settings(max_examples=80, deadline=None)
@given(cells=st.lists(AWKWARD | NASTY, min_size=2, max_size=3))
def test_no_cell_breaks_out_of_its_table(cells: list[str]) -> None:
    lines = table(["a"] * len(cells), [cells]).split("\n")
    assert len(lines) == 3
    assert len(re.findall(r"(?<!\\)(?:\\\\)*\|", lines[2])) == len(cells) + 1
    assert not re.search(r"(?<!\\)[<>`]", lines[2].replace("&lt;", "").replace("&gt;", ""))


def test_user_texts_are_not_markup() -> None:
    assert text("<script>alert(1)</script>") == "&lt;script&gt;alert(1)&lt;/script&gt;"
    assert text("[x](http://evil)\n# title") == "\\[x\\](http&#58;//evil) \\# title"
    assert text("https://me:pass@host/x") == "https&#58;//\\*\\*\\*@host/x"
    assert text("/srv/me/secret/data.jsonl") == "data.jsonl"


@pytest.mark.parametrize(
    "secret",
    [
        TOKEN,
        f"Authorization: Bearer {TOKEN}",
        "https://user:hunter22@host/path",
        "https://s3/x?X-Amz-Signature=abcdef0123&y=1",
        "api_key='abcdef0123'",
        '"password": "hunter22"',
    ],
)
def test_secrets_are_masked(secret: str) -> None:
    masked = mask(f"before {secret} after")
    assert "***" in masked
    assert masked.startswith("before ")
    assert not re.search(r"hunter22|abcdef0123|a1B2", masked)
    assert "***" not in mask('the "pad_token": "<pad>" and token_hash: 42503420, eos token')
    assert mask("x plain-secret y", "plain-secret", None) == "x *** y"
    assert public({"a": ["/x/y/z", 3, None, TOKEN]}) == {"a": ["z", 3, None, "***"]}


def test_files_with_a_token_are_refused_without_showing_it(tmp_path: Path) -> None:
    clean, dirty = tmp_path / "a.json", tmp_path / "b.md"
    clean.write_text('{"hf_": 1, "hf_model": 2}')
    refuse_secrets([clean], "opaque-token")
    dirty.write_text(f"call with {TOKEN}")
    with pytest.raises(InputError, match="holds an access token") as caught:
        refuse_secrets([clean, dirty])
    assert TOKEN not in str(caught.value)
    dirty.write_text("opaque-token")
    with pytest.raises(InputError, match=r"b\.md"):
        refuse_secrets([dirty], "opaque-token")


@pytest.mark.parametrize("reference", ["", "@best"])
def test_an_untrained_step_is_published_only_when_asked(tmp_path: Path, reference: str) -> None:
    run = write_run(tmp_path / "run")
    write_best(run, 0, 0.5, "mean")
    runner, exported = CliRunner(), run.path / "publish" / "me" / "small" / "main" / "provenance.json"

    def publish(*options: str, of: str = reference) -> Result:
        return runner.invoke(app, ["publish", f"{run.path}{of}", "--repo", "me/small", *options])

    refused = publish()
    assert refused.exit_code == 2
    assert "the best step of this run is 0, the model before training" in refused.output
    assert "--allow-untrained" in refused.output
    assert not exported.exists()
    publish("--allow-untrained")
    assert json.loads(exported.read_text())["step"] == 0
    exported.unlink()
    publish("--step", "0", of="")  # by its number
    assert json.loads(exported.read_text())["step"] == 0
    write_best(run, 3, 0.53, "mean")
    publish()
    assert json.loads(exported.read_text())["step"] == 3


def test_the_record_survives_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    record = ReleaseRecord(tmp_path)
    record.set_verified("main", Verified("print", {"transformers": 1e-7}, 2e-7))
    record.add_commit("main", "c1")
    record.add_commit("step-000003", "c2")
    again = ReleaseRecord(tmp_path)
    assert again.verified("main", "print") == Verified("print", {"transformers": 1e-7}, 2e-7)
    assert again.verified("main", "other") is None
    assert again.commits() == {"c1", "c2"}
    for content in ("{", "[]", '{"revisions": 1}'):
        (tmp_path / "ledger.json").write_text(content)
        with pytest.raises(InputError, match=r"ledger\.json(.|\n)*delete it: what is complete on the Hub"):
            ReleaseRecord(tmp_path)
