"""Written configurations read back equal, and a diff names exactly what differs."""

import copy

from hypothesis import given
from hypothesis import strategies as st

from reasoning_embedding.config import (
    as_begun,
    changed_since,
    diff,
    digests,
    load_config,
    resolved_json,
    to_yaml,
)
from reasoning_embedding.config.resolved import ABSENT
from tests.config.config_files import EXPERIMENT, RUN
from tests.factories import run_config


def load(tmp_path, text, *overrides):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    return load_config(path, overrides).config


def test_resolved_yaml_reads_back_equal(tmp_path):
    for text in (RUN, EXPERIMENT):
        config = load(tmp_path, text)
        assert load(tmp_path, to_yaml(config)) == config


@given(
    text=st.text(
        alphabet=st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn"]), min_size=1, max_size=30
    )
)
def test_any_text_survives_writing(tmp_path_factory, text):
    config = run_config(backbone={"path": text})
    path = tmp_path_factory.getbasetemp() / "text.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path).config == config


def test_text_that_looks_like_something_else_is_quoted(tmp_path):
    for text in ("0o17", "1e5", "no", "null", "12:30", "${HOME}", "$${x", "1", "~", ".inf"):
        config = load(tmp_path, RUN, f"backbone.tokenizer='{text.replace('${', '$${')}'")
        assert config.backbone.tokenizer == text
        assert load(tmp_path, to_yaml(config)).backbone.tokenizer == text


def test_diff_names_the_keys(tmp_path):
    a = load(tmp_path, RUN)
    b = load(tmp_path, RUN, "training.steps=11", "training.lora={rank: 4}", "data.sources.0={kind: world}")
    found = diff(a, b)
    assert ("training.steps", 10, 11) in found
    assert ("training.lora.rank", ABSENT, 4) in found
    assert ("training.lora", None, ABSENT) in found
    assert ("data.sources.0.kind", "files", "world") in found
    assert diff(a, a) == []
    assert {key.split(".")[0] for key, _, _ in found} == {"training", "data"}


def test_resolved_json_fills_in_defaults(tmp_path):
    resolved = resolved_json(load(tmp_path, RUN))
    assert (resolved["loss"]["kind"], resolved["loss"]["temperature"]) == ("infonce", 0.02)
    assert resolved["loss"]["directions"] == ["query_document"]
    assert resolved["training"]["betas"] == [0.9, 0.999]


def test_a_configuration_of_an_older_version_is_the_same_with_the_defaults_of_its_missing_keys(tmp_path):
    now = load(tmp_path, RUN)
    saved = resolved_json(now)
    del saved["logging"]
    del saved["training"]["precision"]
    assert changed_since(saved, now) == []
    saved["training"]["precision"] = "fp32"
    assert changed_since(saved, now) == ["training.precision"]
    saved["training"]["precision"] = "a kind of long ago"
    assert "training.precision" in changed_since(saved, now)


def test_resources_may_change_when_a_run_is_resumed_and_what_moves_the_gradient_may_not(tmp_path):
    now = load(tmp_path, RUN)
    saved = resolved_json(now)
    saved |= {"name": "other", "output_dir": "elsewhere", "logging": {"every": 7}, "hrsa": None}
    saved["data"]["cache_dir"] = "cache"
    saved["training"] |= {"threads": 3, "pack_tokens": 77, "memory": "replay", "fused_layers": False}
    assert changed_since(saved, now) == []
    assert digests(saved) == digests(resolved_json(now))
    for section, key, value in (
        ("training", "batch_size", 3),
        ("training", "weight_decay", 0.3),
        ("data", "query_max_tokens", 9),
        ("loss", "temperature", 0.7),
        ("loss", "directions", ["query_document", "document_query"]),
    ):
        other = copy.deepcopy(saved)
        other[section][key] = value
        changed = changed_since(other, now)
        assert changed[0].startswith(f"{section}.{key}")
        old, new = digests(other), digests(resolved_json(now))
        assert next(name for name in old if old[name] != new.get(name)).startswith(f"{section}.{key}")


def test_a_run_keeps_the_default_it_was_begun_with(tmp_path):
    now = load(tmp_path, RUN)
    saved = resolved_json(now)
    assert as_begun(saved, now) == (now, [])
    saved["training"]["final_learning_rate"] = 0.0  # what the version before wrote
    kept, said = as_begun(saved, now)
    assert kept.training.final_learning_rate == 0.0
    assert said == ["training.final_learning_rate = 0.0"]
    assert changed_since(saved, now) == []
    chosen = load(tmp_path, RUN, "training.final_learning_rate=0.1")
    assert as_begun(saved, chosen) == (chosen, [])
    assert changed_since(saved, chosen) == ["training.final_learning_rate"]
