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
PACKAGES = {"torch", "tokenizers", "safetensors", "huggingface_hub", "numpy"}


def imported(path: Path) -> list[str]:
    """All modules that a file imports, wherever in it: "torch.nn", "minisbert.models.bert"."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where a name comes from"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


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
            assert ast.unparse(statement.test) in ("TYPE_CHECKING", "__name__ == '__main__'")
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
