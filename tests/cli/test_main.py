"""Proves that the command `minisbert` finds its three parts, has their exit codes, and speaks in its own name."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert
from minisbert.cli import main, shared
from tests.tiny import tiny_folder

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def run(tmp_path):
    """Runs the command as a process of its own; returns exit code, standard output, standard error."""

    def run(*arguments, root=ROOT, program=("-m", "minisbert.cli.main")):
        command = [sys.executable, *program, *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


def test_help_lists_the_commands_without_torch(run):
    code, out, err = run("main", "--help", program=[PROGRAMS / "without_torch.py"])
    assert (code, err) == (0, "")
    assert all(f"minisbert {name} " in out for name in main.COMMANDS)
    code, out, err = run("main", "encode", "--help", program=[PROGRAMS / "without_torch.py"])
    assert (code, err) == (0, "")
    assert out.startswith("usage: minisbert encode ")
    assert "\nminisbert encode " in out and "encode.py" not in out


def test_the_version(run):
    assert run("--version") == (0, f"minisbert {minisbert.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["enc"], [], ["--nonsense"], ["encode.py", "밥"]])
def test_unknown_names_are_one_line(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("minisbert: ") and err.count("\n") == 1


def test_the_parts_speak_in_the_name_of_the_command(run):
    assert run("encode", "밥", "--top-k", 0) == (2, "", "minisbert encode: --top-k must be at least 1, found 0\n")
    code, _, err = run("evaluate")
    assert code == 2
    assert err.startswith("minisbert evaluate: the following arguments are required: ")
    code, out, _ = run("train", "--list-recipes")
    assert (code, out.split()[0]) == (0, "recipe")


def test_an_installed_package_brings_its_model(run, tmp_path):
    """A copy of the package in a folder of its own, with the model in it, as pip lays it out."""
    site = tmp_path / "site-packages"
    shutil.copytree(ROOT / "minisbert", site / "minisbert", ignore=shutil.ignore_patterns("__pycache__"))
    tiny_folder(site / "minisbert" / "default_model")
    code, out, err = run("encode", "밥", "--device", "cpu", root=site)
    assert code == 0, err
    assert len(json.loads(out)["embedding"]) == 24
    assert err.startswith("minisbert encode: 1 rows, 3 tokens")


def test_default_folders(monkeypatch, tmp_path):
    assert shared.default_model() == ROOT / "weights" / "ko-mini"
    assert shared.weights_folder() == ROOT / "weights"
    monkeypatch.setattr(shared, "PACKAGED_MODEL", tmp_path)
    assert shared.default_model() == tmp_path
    assert shared.weights_folder() == Path("weights")


def test_the_packaged_model_is_the_default_model_whole():
    """Every file of weights/ko-mini that git keeps is one that pyproject.toml names, and the other way round."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folder = ROOT / settings["package-dir"]["minisbert.default_model"]
    patterns = settings["package-data"]["minisbert.default_model"]
    named = {str(path.relative_to(folder)) for pattern in patterns for path in folder.glob(pattern)}
    assert folder == shared.default_model()
    assert {"model.safetensors", "config.json", "modules.json", "tokenizer.json", "1_Pooling/config.json"} <= named
    assert all(list(folder.glob(pattern)) for pattern in patterns)


def test_every_package_is_named():
    tomllib = pytest.importorskip("tomllib", reason="Python 3.11")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    folders = {path.parent for path in (ROOT / "minisbert").rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert set(settings["packages"]) == names | {"minisbert.default_model"}
