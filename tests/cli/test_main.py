"""The command line's frame: light, quiet about torch, and honest in its exit codes."""

import os
import subprocess
import sys

import pytest

from reasoning_embedding import __version__
from reasoning_embedding.cli import main as module
from reasoning_embedding.errors import InputError, ReasoningEmbeddingError, SetupError
from tests.fresh_python import run_python

PROBE = """
import atexit, sys
heavy = ("torch", "numpy", "transformers", "sentence_transformers", "datasets", "mteb", "trl", "matplotlib", "plotly")
atexit.register(lambda: print("HEAVY", [m for m in heavy if m in sys.modules], file=sys.stderr))
from reasoning_embedding.cli.main import main
main(sys.argv[1:])
"""


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        module.main(words)
    return int(caught.value.code or 0)


def use(monkeypatch, tmp_path, name, body):
    """Register a verb whose module is written here."""
    source = f'import typer\ndef command(word: str = "x") -> None:\n    """A verb."""\n{body}\n'
    (tmp_path / f"{name}_verb.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(module.VERBS, name, f"{name}_verb")


def test_help_imports_nothing_heavy():
    probe = PROBE.replace(
        "heavy = (", 'heavy = ("pydantic", "yaml", "rich", '
    )  # not even what configurations need
    done = run_python(probe, "--help")
    assert done.returncode == 0
    assert all(verb in done.stdout for verb in module.VERBS)
    assert "HEAVY []" in done.stderr


def test_importing_main_imports_no_verb():
    code = (
        "import sys, reasoning_embedding.cli.main\n"
        "print(*sorted(m for m in sys.modules if '.cli.' in m), 'rich' in sys.modules)"
    )
    done = run_python(code)
    parts = [f"reasoning_embedding.cli.{name}" for name in ("_app", "main")]
    assert done.stdout.split() == [*parts, "False"]


def test_version_and_module_entry(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"reasoning-embedding {__version__}\n"
    done = subprocess.run(
        [sys.executable, "-m", "reasoning_embedding", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


@pytest.mark.parametrize(
    "words", [["confg"], ["--nope"], ["config", "check", "--nope", "x"], ["config", "show"], []]
)
def test_usage_errors_exit_2(words, capsys):
    assert run(*words) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_misspelt_verb_gets_a_suggestion(capsys):
    assert run("confg") == 2
    assert "Did you mean 'config'" in capsys.readouterr().err


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (SetupError, 3), (ReasoningEmbeddingError, 1)])
def test_errors_of_the_project_are_a_message_and_an_exit_code(error, code, monkeypatch, tmp_path, capsys):
    body = (
        f"    from reasoning_embedding.errors import {error.__name__}\n"
        f"    raise {error.__name__}('it broke', where='f.yaml:3', todo='mend it')"
    )
    use(monkeypatch, tmp_path, f"bad{code}", body)
    assert run(f"bad{code}") == code
    assert capsys.readouterr().err == "error: f.yaml:3: it broke\n  -> mend it\n"


def test_ctrl_c_exits_130(monkeypatch, tmp_path, capsys):
    use(monkeypatch, tmp_path, "stop", "    raise KeyboardInterrupt")
    assert run("stop") == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_any_other_error_is_a_plain_traceback(tmp_path):
    (tmp_path / "crash_verb.py").write_text(
        'def command() -> None:\n    """Crash."""\n    raise RuntimeError("a bug")\n'
    )
    code = "from reasoning_embedding.cli import main as m; m.VERBS['crash'] = 'crash_verb'; m.main(['crash'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.rstrip().endswith("RuntimeError: a bug")
    assert "╭" not in done.stderr


def test_a_verb_gets_its_words_and_its_docstring(monkeypatch, tmp_path, capsys):
    use(monkeypatch, tmp_path, "echo", "    typer.echo(word)")
    assert run("echo", "--word", "hello") == 0
    assert capsys.readouterr().out == "hello\n"
    assert run("echo", "--help") == 0
    assert "A verb." in capsys.readouterr().out
