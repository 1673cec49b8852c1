"""Proves that dependencies run one way, that only five packages are needed to run, and that importing does no work."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {path.stem: path for path in sorted((ROOT / "minisbert").glob("*.py")) if path.stem != "__init__"}
SCRIPTS = {path.stem: path for path in sorted(ROOT.glob("*.py"))}
PACKAGES = {"torch", "tokenizers", "safetensors", "huggingface_hub", "numpy"}
# A module may import those of earlier lines. Read downwards it is the order in which to read the code.
ORDER = (
    "errors",
    "layers pooling similarity batching display losses optim",
    "config devices files text_input command_line",
    "bert roberta deberta_v2 tokenizer_checks tables",
    "tokenization checkpoint folder vector_output data training_log",
    "hub_cache hub_answers corpora training_state families processes model_tokenizer",
    "hub",
    "sentence_encoder",
    "training evaluation block_encoder",
    "recipes mini",
    "model_card",
    "training_data",
)
LEVELS = {module: level for level, line in enumerate(ORDER) for module in line.split()}


def imported(path: Path) -> list[str]:
    """All modules that a file imports, wherever in it: "torch.nn", "minisbert.bert"."""
    names = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide where a name comes from"
            # `from minisbert import bert` imports minisbert.bert
            names += (
                [f"minisbert.{alias.name}" for alias in node.names] if node.module == "minisbert" else [node.module]
            )
    return names


def own(path: Path) -> list[str]:
    """The modules of this package that a file imports."""
    names = [name.removeprefix("minisbert.") for name in imported(path) if name.startswith("minisbert.")]
    return ["sentence_encoder" if name == "SentenceEncoder" else name for name in names]


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_run_one_way(module):
    assert module in LEVELS, f"{module}.py has no place in ORDER yet"
    for other in own(MODULES[module]):
        assert LEVELS[other] < LEVELS[module], f"{module} may not import {other}"


@pytest.mark.parametrize("model", ["bert", "roberta", "deberta_v2"])
def test_models_know_nothing_of_files(model):
    assert set(own(MODULES[model])) <= {"config", "errors", "layers"}


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS.values()], ids=lambda path: path.stem)
def test_five_packages_are_enough(path):
    tops = {name.partition(".")[0] for name in imported(path)}
    assert tops <= PACKAGES | {"minisbert"} | sys.stdlib_module_names


@pytest.mark.parametrize("path", [*MODULES.values(), *SCRIPTS.values()], ids=lambda path: path.stem)
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
        "import sys, minisbert; print(sorted({'torch', 'numpy', 'tokenizers'} & set(sys.modules)));"
        f"[__import__('minisbert.' + name) for name in {sorted(MODULES)}];"
        "import threading; print(threading.active_count(), 'huggingface_hub' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (result.stdout, result.stderr) == ("[]\n1 False\n", "")
