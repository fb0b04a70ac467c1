"""``rembed doctor``: findings follow the machine, and only broken core pieces fail it."""

import http.server
import threading
import types

import pytest
import torch

from reasoning_embedding import host
from reasoning_embedding.cli import _doctor_checks as checks
from reasoning_embedding.cli.main import main


def run(*words) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def only(findings):
    (found,) = findings
    return found


def test_every_check_works_here(capsys):
    assert run("doctor") == 0
    out = capsys.readouterr().out
    for name in (
        "python",
        "packages",
        "cpu",
        "torch",
        "attention cpu",
        "hub",
        "disk",
        "tensorboard",
        "chromium",
    ):
        assert name in out
    assert "HF_HUB_OFFLINE is set" in out


def test_a_broken_core_piece_exits_3(monkeypatch, capsys):
    broken = checks.Finding("python", "problem", "too old", "make install", core=True)
    monkeypatch.setattr(checks, "CHECKS", (lambda: iter([broken]),))
    assert run("doctor") == 3
    out, err = capsys.readouterr()
    assert "-> make install" in out
    assert err.startswith("error: python must work")


def test_an_absent_extra_or_a_full_disk_does_not(monkeypatch, capsys):
    findings = [checks.Finding("wandb", "absent", "-"), checks.Finding("disk", "problem", "full")]
    monkeypatch.setattr(checks, "CHECKS", (lambda: iter(findings),))
    assert run("doctor") == 0


def test_versions_are_held_against_the_ranges(monkeypatch):
    monkeypatch.setattr(
        checks.metadata, "requires", lambda _: ["numpy>=2.0", "torch>=2.10", "mteb>=2.26 ; extra == 'eval'"]
    )
    installed = {"numpy": "2.1", "torch": "2.9.1", "mteb": None}
    monkeypatch.setattr(checks, "_version", installed.get)
    core, extra = checks.packages()
    assert (core.state, core.core) == ("problem", True)
    assert core.detail == "torch 2.9.1 is outside >=2.10"
    assert (extra.name, extra.state, extra.core) == ("extra eval", "absent", False)
    installed["torch"] = "2.13.0+cpu"
    assert next(checks.packages()).state == "ok"


def test_packed_attention_is_really_compared(monkeypatch):
    from reasoning_embedding.backbones import attention

    assert next(checks.attention()).state == "ok"

    def leaking(module, query, key, value, mask, **kwargs):
        return value.transpose(1, 2), None

    monkeypatch.setattr(attention, "packed_attention", leaking)
    found = next(checks.attention())
    assert (found.state, found.core) == ("problem", True)


def test_hub(monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.handle_request, daemon=True).start()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    assert only(checks.hub()).state == "ok"
    server.server_close()
    assert only(checks.hub()).state == "absent"
    monkeypatch.setenv("HF_ENDPOINT", "not a url")
    assert only(checks.hub()).state == "absent"


def test_disk(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    usage = type("Usage", (), {"free": 2**30})
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda _: usage)
    assert only(checks.disk()).state == "problem"
    usage.free = 2**40
    assert only(checks.disk()).state == "ok"


def test_a_limit_on_memory_is_named(monkeypatch):
    for available, limited, state in ((9, True, "ok"), (1, True, "problem"), (1, False, "problem")):
        memory = host.Memory(available * 2**30, 12 * 2**30, limited)
        monkeypatch.setattr(host, "host_memory", lambda memory=memory: memory)
        found = only(checks.cpu())
        assert found.state == state
        assert f"{available}.0 of 12.0 GiB" in found.detail
        assert ("limit" in found.detail) == limited
        assert ("scheduler" in (found.todo or "")) == (limited and state == "problem")


def test_a_gpu_is_named_with_its_memory_and_attention(monkeypatch):
    device = types.SimpleNamespace(name="NVIDIA H200", total_memory=141 * 2**30)
    for name, answer in (
        ("is_available", True),
        ("device_count", 1),
        ("get_device_properties", device),
        ("is_bf16_supported", True),
    ):
        monkeypatch.setattr(torch.cuda, name, lambda *args, answer=answer: answer)
    found = {finding.name: finding for finding in checks.devices()}
    assert found["cuda:0"].detail == "NVIDIA H200, 141 GiB, bf16"
    for error, state in ((None, "ok"), ("texts leak into each other", "problem")):
        monkeypatch.setattr(
            checks, "_packed_error", lambda device, error=error: error if device == "cuda" else None
        )
        found = {finding.name: finding for finding in checks.attention()}
        assert found["attention gpu"].state == state
