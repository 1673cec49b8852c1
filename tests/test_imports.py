"""Proves that dependencies run one way, that only five packages are needed to run, and that importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "minisbert"
SCRIPTS = [path for path in sorted([*PACKAGE.rglob("*.py"), *ROOT.glob("*.py")]) if path.stem != "__init__"]
MODULES = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SCRIPTS if PACKAGE in path.parents}
# Rooms may import from lower lines and from themselves; models/ from errors alone. `python -m minisbert.evaluation` is a door.
FLOORS = """
    encode train
    cli
    tour
    training
    search
    sentence_encoder
    text storage distributed
    models files devices evaluation
    errors similarity progress
"""
FLOOR_OF = {room: number for number, line in enumerate(FLOORS.split("\n")) for room in line.split()}
PACKAGES = {"torch", "tokenizers", "safetensors", "huggingface_hub", "numpy"}


def is_door(node: ast.stmt) -> bool:
    """Whether it is what a file does when it is run, `if __name__ == "__main__": ...`."""
    return isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"


def imported(path: Path) -> list[str]:
    """All modules that a file imports, wherever in it: "torch.nn", "minisbert.models.bert"."""
    names = []
    program = ast.parse(path.read_text(encoding="utf-8"))
    program.body = [node for node in program.body if not is_door(node)]
    for node in ast.walk(program):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where a name comes from"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    room = path.relative_to(PACKAGE if PACKAGE in path.parents else ROOT).with_suffix("").parts[0]
    assert room in FLOOR_OF, f"{room} has no floor yet"
    for name in imported(path):
        if name.startswith("minisbert.") and name != "minisbert.__version__":
            other = name.split(".")[1].replace("SentenceEncoder", "sentence_encoder")
            lower = FLOOR_OF[other] > FLOOR_OF[room] and (room != "models" or other == "errors")
            assert other == room or lower, f"{path.name} may not import {name}"


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_five_packages_are_enough(path):
    tops = {name.partition(".")[0] for name in imported(path)}
    assert tops <= PACKAGES | {"minisbert"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_modules_only_define(path):
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    docstring, *statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(docstring, ast.Expr)
    for statement in statements:
        if isinstance(statement, ast.If):
            assert is_door(statement) or ast.unparse(statement.test) == "TYPE_CHECKING"
        else:
            assert isinstance(statement, definitions), f"line {statement.lineno} does work at import"


def test_importing_is_quiet_and_the_package_alone_is_light():
    program = (
        "import importlib, sys, minisbert; print(sorted({'torch', 'numpy', 'tokenizers'} & set(sys.modules)));"
        f"[importlib.import_module(name) for name in {sorted(MODULES)}];"
        "import threading; print(threading.active_count(), 'huggingface_hub' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (result.stdout, result.stderr) == ("[]\n1 False\n", "")
