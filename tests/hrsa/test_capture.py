"""Capturing a real Qwen3, and the controls that change its basis but not what it computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import ortho_group

from reasoning_embedding import hrsa
from reasoning_embedding.backbones import decoder_layers, load_decoder
from reasoning_embedding.data.miniature_world import MiniatureWorld
from reasoning_embedding.errors import InputError
from reasoning_embedding.hrsa.capture import Activations, draw_sample, read, token_hash, tokenize
from tests.hrsa.hrsa_models import qwen3, save, words

TEXTS = [text for question, document, _ in MiniatureWorld(0).pairs("train") for text in (question, document)]
HIDDEN = 64


def hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.fixture(scope="module")
def ids() -> list[np.ndarray]:
    return tokenize(TEXTS, words(), 128)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    model = qwen3()
    return model, save(model, tmp_path_factory.mktemp("original"))


def change_basis(model, permutation: np.ndarray | None = None, rotation: np.ndarray | None = None):
    """The same function in another basis of the residual stream, in place.

    A permutation moves the norm gains along; for a rotation they are folded into the linear maps that follow.
    """
    matrix = np.eye(HIDDEN)[:, permutation] if rotation is None else rotation
    q = torch.tensor(matrix, dtype=torch.float32)

    def gain_into(norm, *readers) -> None:
        if rotation is None:
            norm.weight.copy_(norm.weight @ q)
        else:
            for reader in readers:
                reader.weight.mul_(norm.weight)
            norm.weight.fill_(1.0)
        for reader in readers:
            reader.weight.copy_(reader.weight @ q)

    with torch.no_grad():
        body = model.model
        body.embed_tokens.weight.copy_(body.embed_tokens.weight @ q)
        for layer in body.layers:
            attention, mlp = layer.self_attn, layer.mlp
            gain_into(layer.input_layernorm, attention.q_proj, attention.k_proj, attention.v_proj)
            gain_into(layer.post_attention_layernorm, mlp.gate_proj, mlp.up_proj)
            for writer in (attention.o_proj, mlp.down_proj):
                writer.weight.copy_(q.T @ writer.weight)
        gain_into(body.norm, model.lm_head)
    return model


def logits(model, ids: list[np.ndarray]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(torch.tensor(text)[None]).logits[0] for text in ids[:20]])


def capture(model, ids: list[np.ndarray], sample, **options) -> Activations:
    return read([model], [ids], sample, **options)[0]


def states(folder, ids: list[np.ndarray], max_rows: int = 100_000):
    model, _ = load_decoder(str(folder))
    sample = draw_sample([len(text) for text in ids], "all", max_rows, 0)
    return capture(model, ids, sample)


def compare_layers(a, b) -> list[tuple[float, ...]]:
    return [
        (
            float(hrsa.dimension_wise_correlation(x, y)),
            float(hrsa.orthogonal_procrustes(x, y, documents=a.sample.documents)),
            float(hrsa.linear_cka(x, y)),
            float(hrsa.knn_overlap(x, y, k=10)),
        )
        for x, y in zip(a.states, b.states, strict=True)
    ]


def test_permuted_residual_stream(original, ids, tmp_path):
    before, folder = original
    moved = change_basis(qwen3(), permutation=np.roll(np.arange(HIDDEN), 17))
    assert torch.allclose(logits(before, ids), logits(moved, ids), atol=2e-5)
    found = compare_layers(states(folder, ids), states(save(moved, tmp_path), ids))
    assert len(found) == 5
    for correlation, h_inv, cka, knn in found:
        assert abs(correlation) < 0.15
        assert h_inv > 0.99
        assert cka > 0.99999
        assert knn > 0.99


def test_rotated_residual_stream(original, ids, tmp_path):
    before, folder = original
    moved = change_basis(qwen3(), rotation=ortho_group.rvs(HIDDEN, random_state=0))
    assert torch.allclose(logits(before, ids), logits(moved, ids), atol=3e-5)
    found = compare_layers(states(folder, ids), states(save(moved, tmp_path), ids))
    for correlation, h_inv, cka, knn in found[:-1]:
        assert abs(correlation) < 0.15
        assert h_inv == pytest.approx(hrsa.h_inv_floor(HIDDEN), abs=0.03)
        assert cka > 0.99999
        assert knn > 0.99
    # The gain of the final norm moved into the head, so the state after that norm did change.
    assert 0.9 < found[-1][2] < 0.9995
    assert found[-1][3] < 0.99


def test_a_model_of_other_weights_is_no_control(original, ids, tmp_path):
    found = compare_layers(states(original[1], ids), states(save(qwen3(seed=1), tmp_path), ids))
    assert found[2][2] < 0.9


def test_states_are_those_of_a_plain_forward_of_each_text(original, ids):
    model, folder = original
    found = states(folder, ids)
    assert found.layers == ["embedding", "layer 1", "layer 2", "layer 3 (pre-norm)", "final norm"]
    assert found.causal
    row = 0
    for document in (0, 5, 30):
        rows = np.flatnonzero(found.sample.documents == document)
        with torch.no_grad():
            output = model.model(torch.tensor(ids[document])[None], output_hidden_states=True)
        # transformers hands out the last layer after the norm only.
        for layer in range(3):
            plain = output.hidden_states[layer][0].numpy()
            assert np.allclose(found.states[layer][rows], plain, atol=1e-5)
        final = output.last_hidden_state[0].numpy()
        assert np.allclose(found.states[-1][rows], final, atol=1e-5)
        normed = model.model.norm(torch.tensor(found.states[-2][rows])).detach().numpy()
        assert np.allclose(normed, final, atol=1e-5)
        assert np.allclose(found.last[document], final[-1], atol=1e-5)
        assert np.allclose(found.mean[document], final.mean(axis=0), atol=1e-5)
        row += len(rows)
    assert row > 10


@pytest.mark.parametrize("rule", ["last", "mean"])
def test_pooled_rules_keep_one_row_a_text(original, ids, rule):
    model, _ = load_decoder(str(original[1]))
    sample = draw_sample([len(text) for text in ids], rule, 50, 0)
    found = capture(model, ids, sample, pack_tokens=64)
    assert found.states[0].shape == (50, HIDDEN)
    pooled = found.last if rule == "last" else found.mean
    assert np.allclose(found.states[-1], pooled[sample.documents], atol=1e-6)


def test_packs_do_not_change_the_states(original, ids):
    model, _ = load_decoder(str(original[1]))
    sample = draw_sample([len(text) for text in ids], "all", 200, 0)
    small, large = (capture(model, ids, sample, pack_tokens=n) for n in (16, 4096))
    for x, y in zip(small.states, large.states, strict=True):
        assert np.allclose(x, y, atol=1e-5)


def test_attention_is_as_saved(tmp_path, original, ids):
    both_ways = states(save(qwen3(causal=False), tmp_path), ids, 200)
    causal = states(original[1], ids, 200)
    assert not both_ways.causal
    assert np.allclose(both_ways.states[0], causal.states[0])
    assert not np.allclose(both_ways.states[2], causal.states[2], atol=1e-3)


def test_hooks_are_removed_also_after_an_error(original, ids):
    model, _ = load_decoder(str(original[1]))
    before = hooks(model)
    sample = draw_sample([len(text) for text in ids], "all", 10, 0)
    capture(model, ids, sample)
    assert hooks(model) == before

    def fail(*_):
        assert hooks(model) > before + 1
        raise RuntimeError("broken layer")

    handle = decoder_layers(model)[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="broken layer"):
        capture(model, ids, sample)
    handle.remove()
    assert hooks(model) == before


def test_nan_states_name_the_layer(ids):
    model = qwen3()
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    model.set_attn_implementation("packed")
    sample = draw_sample([len(text) for text in ids], "all", 50, 0)
    with pytest.raises(InputError, match="layer 2") as caught:
        capture(model.model, ids, sample)
    assert "NaN" in caught.value.what


def test_sample_is_bounded_fixed_by_the_seed_and_sorted():
    lengths = [5, 1, 9, 20]
    sample = draw_sample(lengths, "all", 12, 0)
    again, other = draw_sample(lengths, "all", 12, 0), draw_sample(lengths, "all", 12, 1)
    assert len(sample) == 12
    assert np.array_equal(sample.positions, again.positions)
    assert not np.array_equal(sample.positions, other.positions)
    assert (np.diff(sample.documents) >= 0).all()
    assert all(p < lengths[d] for d, p in zip(sample.documents, sample.positions, strict=True))
    assert len(draw_sample(lengths, "all", 1000, 0)) == 35
    assert draw_sample(lengths, "last", 10, 0).positions.tolist() == [4, 0, 8, 19]


def test_token_hash_tells_where_texts_end():
    one, two = [np.array([1, 2]), np.array([3])], [np.array([1]), np.array([2, 3])]
    assert token_hash(one) == token_hash([text.astype(np.int32) for text in one])
    assert token_hash(one) != token_hash(two)
