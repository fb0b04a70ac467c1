"""The Makefile, the configurations, the pins and the tracked files keep their promises."""

import ast
import hashlib
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from reasoning_embedding import __version__
from reasoning_embedding.config import load_config

ROOT = Path(__file__).resolve().parents[2]
#: The launcher's files are tested with the launcher's own loader.
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "accelerate")
assert CONFIGS


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_configuration_is_valid(path):
    assert load_config(path).config.kind in ("run", "lineage", "experiment", "merge", "sweep")


def test_make_alone_lists_every_target():
    done = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    listed = set(re.findall(r"^  make ([\w-]+)", done.stdout, re.MULTILINE))
    text = (ROOT / "Makefile").read_text()
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())
    assert listed == phony == set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    assert {"install", "quickstart", "test", "check", "lint", "types", "clean"} <= listed


def test_install_is_one_stamp_that_a_second_call_finds(tmp_path):
    """A tree with a fresh stamp has nothing to do; a newer constraints file asks for an installation."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        os.utime(tmp_path / name, (1_000_000_000, 1_000_000_000))
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()

    def commands() -> str:
        make = ["make", "--no-print-directory", "--dry-run", "install"]
        return subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    assert "pip" not in commands()
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10
    os.utime(tmp_path / "constraints.txt", (later, later))
    assert "pip install" in commands()


def test_ci_runs_make_test():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert lines[-1] == "make test"


def test_pins_are_exact_and_within_the_ranges():
    from packaging.requirements import Requirement

    lines = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in ("#", "")
    ]
    pins = {}
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line), line
        name, version = line.split("==")
        pins[name.lower().replace("_", "-")] = version
    assert len(pins) > 20
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [
        *project["dependencies"],
        *(
            item
            for name in ("dev", "eval", "lineage", "merge", "tracking", "report")
            for item in extras[name]
        ),
    ]:
        requirement = Requirement(line)
        if requirement.name != "reasoning-embedding":
            pinned = pins[requirement.name.lower().replace("_", "-")]
            assert requirement.specifier.contains(pinned), line


def requirements(*extras: str) -> list:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + [
        line for name in extras for line in project["optional-dependencies"][name]
    ]
    return [item for item in map(Requirement, lines) if item.name != "reasoning-embedding"]


def test_the_lowest_pins_are_the_lower_bounds():
    from packaging.version import Version

    lines = (ROOT / "constraints-lowest.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line[:1] not in ("#", ""))
    tested = ("deepspeed", "eval", "lineage", "merge", "mining", "report", "slurm", "tracking")
    for item in requirements(*tested):
        [bound] = item.specifier
        assert bound.operator == ">=", item
        assert Version(pins[item.name.lower()]) == Version(bound.version), item


def test_extras_that_stand_alone_stand_alone():
    """What the package works without is no part of the installation for development."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    alone = {"wandb", "trackio", "flash-attn", "bitsandbytes", "vllm", "serving", "search", "docs"}
    assert alone <= set(extras)
    [own] = [line for line in extras["dev"] if line.startswith("reasoning-embedding[")]
    inside = set(own.removeprefix("reasoning-embedding[").rstrip("]").split(","))
    assert inside == set(extras) - alone - {"dev"}


def test_versions_of_python_are_one_list():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = [
        line.rpartition(" ")[2] for line in project["classifiers"] if re.search(r"Python :: 3\.\d+$", line)
    ]
    assert project["requires-python"] == f">={named[0]}"
    tests = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert tests["jobs"]["newest"]["strategy"]["matrix"]["python"] == named
    assert named == ["3.11", "3.12", "3.13", "3.14"]


def test_workflows_run_targets_that_exist_and_store_no_token():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert {file.stem for file in files} == {"tests", "docs", "release"}
    run = []
    for file in files:
        text = file.read_text()
        assert "secrets." not in text, f"{file.name}: trusted publishing needs no token"
        workflow = yaml.safe_load(text)
        assert workflow["permissions"] == {"contents": "read"}, "more is for a job to ask"
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 180, file.name
            run += [step["run"] for step in job["steps"] if "run" in step]
    made = {word for line in run for word in re.findall(r"^make ([a-z-]+)", line, re.MULTILINE)}
    assert {"check", "docs"} <= made <= targets
    assert any("-c constraints-lowest.txt" in line for line in run)


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_images_have_pinned_bases_and_no_root(name):
    text = (ROOT / "docker" / f"{name}.Dockerfile").read_text()
    for base in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
        assert re.search(r":\d+\.\d+\.\d+-", base), base
    users = re.findall(r"^USER (\S+)", text, re.MULTILINE)
    assert users
    assert "root" not in users
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for path in line.split():
            assert (ROOT / path).exists(), path
            assert path in allowed, f"{path} is left out by .dockerignore"
    extras = set(re.search(r'"\.\[([\w,-]+)\]"', text)[1].split(","))
    assert extras <= set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    )


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "Apache-2.0"


def test_the_licence_is_the_apache_licence():
    text = (ROOT / "LICENSE").read_bytes()
    # SHA-256 of https://www.apache.org/licenses/LICENSE-2.0.txt
    assert (
        hashlib.sha256(text).hexdigest() == "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"
    )


def test_no_tracked_file_names_a_machine():
    wrong = re.compile(r"(?<![\w.$}{])/(?:work|home|root|Users|mnt|opt)/[\w.-]+")
    assert wrong.search("under /" + "home/me/x"), "the expression finds one"
    files = tracked()
    assert len(files) > 100
    for path in files:
        if path.suffix in (".png", ".gz", ".parquet", ".safetensors"):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            assert not wrong.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"


def test_no_two_public_classes_have_one_name():
    places: dict[str, list[str]] = {}
    for path in (ROOT / "reasoning_embedding").rglob("*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(str(path.relative_to(ROOT)))
    assert len(places) > 100, "the classes are found"
    assert {name: files for name, files in places.items() if len(files) > 1} == {}


def test_make_review_prints_long_files_and_wide_folders(tmp_path):
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for folder, files, lines in (("wide", 21, 1), ("narrow", 20, 500), ("long", 1, 501)):
        (tmp_path / "reasoning_embedding" / folder).mkdir(parents=True)
        for number in range(files):
            (tmp_path / "reasoning_embedding" / folder / f"m{number}.py").write_text("x = 1\n" * lines)
    (tmp_path / "benchmarks").mkdir()
    make = ["make", "--no-print-directory", "review"]
    said = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^ +(\d+) (\S+)$", said, re.MULTILINE) == [
        ("501", "reasoning_embedding/long/m0.py"),
        ("21", "reasoning_embedding/wide"),
    ]
