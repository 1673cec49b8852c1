"""Proves that encode.py keeps its contract: what it prints and writes, its exit codes, and that a failure is one line.

The cases E2 to E20 that a command line can show are named after their numbers. Most tests call `main` in this process;
where signals, pipes or the limits of a process matter, a process is started.
"""

import errno
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from minisbert import SentenceEncoder, devices
from minisbert.cli import encode, encode_run
from minisbert.models import bert
from tests.benchmarks import soak_encode
from tests.tiny import SENTENCES, tiny_folder

ROOT = Path(__file__).resolve().parents[2]
WORDS = "한 두 남자 여자 아이 고양이 밥 빵 물 길 날씨".split()
PROGRAMS = Path(__file__).parent / "programs"
HAS_INT8 = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")


def sentences(count):
    """So many different texts of different lengths."""
    return [" ".join(WORDS[(row * 7 + k * k) % 11] for k in range(1 + row % 13)) + f" {row % 3}" for row in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_folder(tmp_path_factory.mktemp("모델") / "작은 모델"))


@pytest.fixture
def run(model, capsys, monkeypatch, tmp_path):
    """Runs encode.py with the tiny model in an empty folder; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*arguments, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            code = encode.main(["-m", model, "--device", "cpu", *map(str, arguments)])
        except SystemExit as stop:
            code = stop.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    yield run
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def start(model, tmp_path):
    """Starts encode.py, with blocks of eight rows, as a process of its own."""
    started = []

    def start(*arguments, **options):
        command = [
            sys.executable,
            PROGRAMS / "encode_in_small_blocks.py",
            "-m",
            model,
            "--device",
            "cpu",
            *map(str, arguments),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def is_one_line(err):
    return err.startswith("encode.py: ") and err.count("\n") == 1 and err.endswith("\n")


def left_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def test_vectors_are_json_lines_with_every_bit(run, model):
    code, out, err = run(*SENTENCES)
    assert code == 0
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["text"] for row in rows] == SENTENCES
    expected = SentenceEncoder.from_pretrained(model, device="cpu").encode(SENTENCES)
    np.testing.assert_array_equal(np.array([row["embedding"] for row in rows], dtype=np.float32), expected)
    assert is_one_line(err)
    assert "6 rows, 50 tokens, 0 rows truncated, 4.0 % unknown tokens, 0 rows not NFC" in err


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "jsonl"])
def test_every_form_holds_the_same_vectors(run, form, model):
    code, out, _ = run(*SENTENCES, "-o", f"벡터.{form}", "--quiet")
    assert (code, out) == (0, "")
    path = Path(f"벡터.{form}")
    if form == "npy":
        vectors = np.load(path)
    elif form == "npz":
        vectors = np.load(path)["embeddings"]
    elif form == "safetensors":
        vectors = load_file(path)["embeddings"]
    else:
        vectors = np.array([json.loads(line)["embedding"] for line in path.read_bytes().splitlines()], dtype=np.float32)
    np.testing.assert_array_equal(vectors, SentenceEncoder.from_pretrained(model, device="cpu").encode(SENTENCES))
    assert left_in(".") == [path.name, f"{path.name}.json"]


def test_options_reach_the_model(run, model):
    run(*SENTENCES, "-o", "a.npy", "--normalize", "--truncate-dim", "5", "--prompt", "한 ", "--batch-tokens", "20")
    options = {"normalize_embeddings": True, "truncate_dim": 5, "prompt": "한 ", "max_tokens_per_batch": 20}
    expected = SentenceEncoder.from_pretrained(model, device="cpu").encode(SENTENCES, **options)
    np.testing.assert_array_equal(np.load("a.npy"), expected)
    assert run("밥", "--prompt-name", "query")[0] == 2  # the model has none


def test_quiet_says_nothing(run):
    assert run("밥", "-o", "a.npy", "--quiet") == (0, "", "")


def test_similarity_prints_the_matrix(run, monkeypatch):
    monkeypatch.setattr(encode_run, "SIMILARITY_ROWS_AT_ONCE", 2)
    code, out, _ = run("--similarity", "밥", "한 남자가 빵을 먹는다.", "밥")
    matrix = np.array([line.split("\t") for line in out.splitlines()], dtype=float)
    assert code == 0
    assert matrix.shape == (3, 3)
    np.testing.assert_array_equal(matrix, matrix.T)
    assert matrix[0, 2] == matrix[0, 0] == 1 > matrix[0, 1]


@pytest.mark.parametrize("options", [[], ["--prompt", "물 "], ["--truncate-dim", "8"], ["--nfc"]])
def test_why_divides_the_similarity_among_tokens(run, options):
    texts = ["밥", unicodedata.normalize("NFD", "한 남자가 빵을 먹는다.")]
    code, out, _ = run("--similarity", "--why", *options, *texts)
    assert code == 0
    first, _, headings, *rows = [line.split("\t") for line in out.splitlines()]
    cells = np.array([row[1:] for row in rows], dtype=float)
    assert (len(headings), rows[-1][0]) == (cells.shape[1] + 1, "sum")
    assert any(name.startswith("[UNK]") for name in headings) == ("--nfc" not in options)
    assert ("물" in headings) == ("--prompt" in options)
    assert cells[-1, -1] == pytest.approx(float(first[1]), abs=1e-3)
    np.testing.assert_allclose(cells[:-1].sum(0), cells[-1], atol=0.01)  # each is rounded
    assert run("--why", *options, *texts)[1].splitlines() == out.splitlines()[2:]


@pytest.mark.parametrize("count", [1, 3])
def test_why_is_for_two_texts(run, count):
    assert run("--why", *SENTENCES[:count]) == (2, "", f"encode.py: --why is for two texts, found {count}\n")


def test_query_prints_the_best_first_and_the_earlier_of_equals(run, monkeypatch):
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 2)
    code, out, err = run("--query", "밥", "--top-k", "3", "날씨가 춥다.", "밥", "고양이는 물을 마신다.", "밥")
    scores, numbers, texts = zip(*(line.split("\t") for line in out.splitlines()), strict=True)
    assert code == 0
    assert numbers[:2] == ("1", "3")
    assert texts[:2] == ("밥", "밥")
    assert scores[:2] == ("1.0000", "1.0000")
    assert len(texts) == 3
    assert "4 rows" in err


def test_a_text_of_many_lines_is_one_line_of_the_answer(run):
    Path("a.jsonl").write_text('{"text": "밥\\n\\u001b[2J빵"}\n', encoding="utf-8")
    assert run("--query", "밥", "-i", "a.jsonl")[1].endswith("\t0\t밥 ?[2J빵\n")


def test_a_terminal_gets_a_table_and_a_grid(run, monkeypatch):
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda self: True)
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, _ = run("--quiet", "밥", "한 남자가 빵을 먹는다.")
    assert code == 0
    assert out.splitlines()[0].endswith("밥")
    assert out.splitlines()[-1].split()[-1] == "1.00"


def test_a_progress_bar_appears_on_a_terminal_only(run, monkeypatch):
    assert "text/s" not in run(*SENTENCES, "-o", "a.npy")[2]
    monkeypatch.setattr("_pytest.capture.CaptureIO.isatty", lambda self: True)
    assert "0/6" in run(*SENTENCES, "-o", "b.npy")[2]
    assert run(*SENTENCES, "-o", "c.npy", "--quiet")[2] == ""


@pytest.fixture
def without_torch(tmp_path):
    """Runs encode.py as a process of its own that fails if it imports torch or numpy."""

    def without_torch(*arguments):
        command = [sys.executable, PROGRAMS / "without_torch.py", "encode", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return without_torch


def test_help_is_quick_and_imports_no_torch(without_torch):
    start = time.perf_counter()
    code, out, err = without_torch("--help")
    assert time.perf_counter() - start < 1  # 0.1 on a machine at rest
    assert (code, err) == (0, "")
    assert "python encode.py" in out


def test_mistakes_are_told_before_torch_is_imported(without_torch, tmp_path):
    (tmp_path / "a.npy").touch()
    (tmp_path / "a.txt").write_text("고양이", encoding="cp949")
    for arguments in (["밥", "--top-k", "0"], ["밥", "-o", "a.npy"], ["-i", "a.txt"], ["-i", "a.txt", "-o", "b.txt"]):
        code, out, err = without_torch(*arguments)
        assert (code, out) == (2, "")
        assert is_one_line(err), err


BAD_USAGE = {
    "--nonsense": 2,
    "--dtype float8": 2,
    "--top-k 0": 2,
    "--top-k drei": 2,
    "--max-length 0": 2,
    "--batch-tokens -5": 2,
    "--truncate-dim 0": 2,
    "--truncate-dim 25": 2,  # the model has 24
    "--prompt a --prompt-name b": 2,
    "--prompt-name query": 2,
    "--similarity --query 밥": 2,
    "--similarity -o a.npy": 2,
    "--why --query 밥": 2,
    "--resume": 2,
    "--resume -o -": 2,
    "--overwrite": 2,
    "--similarity --top-k 3": 2,
    "--groups --top-k 3": 2,
    "--revision main": 2,  # of a folder
    "--device nonsense": 2,
    "--device meta": 2,
    "--device mps": 2,
    "-i also.txt": 2,
    "-o a.txt": 2,
    "-o .": 2,
    "-o nowhere/a.npy": 5,
    "-m nowhere/to/be/found": 3,
}


@pytest.mark.filterwarnings("ignore:.*device")
@pytest.mark.parametrize(("arguments", "expected"), BAD_USAGE.items(), ids=BAD_USAGE)
def test_bad_usage_is_one_line(run, arguments, expected):
    code, out, err = run(*arguments.split(), "밥")
    assert (code, out) == (expected, "")
    assert is_one_line(err), err
    assert left_in(".") == []


def test_an_empty_model_name_is_not_the_default_model(run):
    assert run("-m", "", "밥")[0] == 3


@pytest.mark.parametrize(("name", "expected"), [("none.txt", 5), (".", 5)])
def test_an_input_that_is_no_file_is_one_line(run, name, expected):
    code, _, err = run("-i", name, "-o", "a.npy")
    assert code == expected
    assert is_one_line(err)


@pytest.mark.parametrize("stdin", [None, SimpleNamespace(isatty=lambda: True)], ids=["closed", "terminal"])
def test_nothing_to_encode_is_bad_usage(monkeypatch, capsys, stdin):
    monkeypatch.setattr(sys, "stdin", stdin)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert encode.main([]) == 2
    assert is_one_line(capsys.readouterr().err)


def test_closed_standard_input_is_bad_usage_when_it_is_named_too(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert encode.main(["-i", "-"]) == 2
    assert is_one_line(capsys.readouterr().err)


def test_empty_names_are_bad_usage(run):
    for arguments in (["-i", ""], ["밥", "-i", ""], ["밥", "-o", ""]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err == "encode.py: the name given with --input or --output is empty\n"


def test_what_closed_standard_error_would_get_goes_nowhere(start):
    decomposed = unicodedata.normalize("NFD", "밥")
    process = start("밥", decomposed, stderr=None, preexec_fn=lambda: os.close(2))
    out, _ = process.communicate()
    assert process.returncode == 0
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["밥", decomposed]


def test_an_input_that_cannot_be_read_further_is_named(run, monkeypatch):
    class Broken(io.BytesIO):
        def readinto(self, _):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("builtins.open", lambda name, *mode, open=open: Broken() if name == "a.txt" else open(name, *mode))
    assert run("-i", "a.txt", "-o", "a.npy") == (5, "", "encode.py: a.txt: Input/output error\n")


def test_no_texts_give_an_empty_file(run):
    for form in ("npy", "npz", "safetensors", "jsonl"):
        assert run("-o", f"a.{form}", "--truncate-dim", 7)[0] == 0
    assert np.load("a.npy").shape == np.load("a.npz")["embeddings"].shape == (0, 7)
    assert load_file("a.safetensors")["embeddings"].shape == (0, 7)
    assert Path("a.jsonl").read_bytes() == b""
    for arguments in (["--similarity"], ["--query", "밥"], []):
        assert run("--quiet", *arguments) == (0, "", "")
    assert run("-o", "b.npy", "--truncate-dim", 25)[0] == 2


def test_standard_output_is_utf8_whatever_the_locale(run, monkeypatch, capsys):
    sys.stdout.reconfigure(encoding="ascii")
    assert "고양이" in run("고양이")[1]


def test_a_model_that_does_not_fit_is_one_line(run, monkeypatch):
    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("minisbert.sentence_encoder.load_checkpoint", no_memory)
    code, _, err = run("밥")
    assert code == 2
    assert is_one_line(err)
    assert "the model does not fit on cpu" in err


def test_what_cannot_be_compiled_is_one_line(run, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("No working C++ compiler found\nand much more")

    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, dynamic: setattr(self, "forward", broken))
    code, _, err = run("--compile", "밥")
    assert code == 2
    assert err == "encode.py: --compile: cannot be done here: No working C++ compiler found; leave it out\n"


@pytest.mark.parametrize("value", ["null", "7", '["밥"]', "NaN", "true"])
def test_E2_a_row_that_is_no_text_is_named(run, value):
    Path("a.jsonl").write_text('{"text": "밥"}\n{"text": ' + value + "}\n", encoding="utf-8")
    code, _, err = run("-i", "a.jsonl", "-o", "a.npy")
    assert code == 2
    assert "a.jsonl:2: the field 'text' is not a text" in err
    assert left_in(".") == ["a.jsonl"]


def test_E3_a_lone_surrogate_is_named(run):
    Path("a.jsonl").write_text('{"text": "밥"}\n{"text": "빵\\ud800"}\n', encoding="utf-8")
    code, _, err = run("-i", "a.jsonl", "-o", "a.npy")
    assert code == 2
    assert "a.jsonl:2: the field 'text': character 2 is no Unicode character" in err
    assert left_in(".") == ["a.jsonl"]
    for arguments in (["밥", "\udcff"], ["--query", "\udcff", "밥"], ["--prompt", "\udcff", "밥"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert is_one_line(err)


@pytest.mark.parametrize("length", [0, 1, 2, 41])
def test_E5_impossible_lengths_are_refused(run, length):
    code, _, err = run("--max-length", length, "밥")
    assert code == 2
    assert is_one_line(err)


def test_E5_what_is_cut_is_counted(run):
    assert "2 rows, 10 tokens, 1 rows truncated" in run("--max-length", "5", "밥 빵 물 길", "밥 빵 물")[2]


def test_E6_decomposed_hangul_is_told_once_and_composed_on_demand(run, monkeypatch):
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 2)
    decomposed = [unicodedata.normalize("NFD", sentence) for sentence in SENTENCES]
    run(*SENTENCES, "-o", "a.npy")
    code, _, err = run(*decomposed, "-o", "b.npy")
    assert code == 0
    assert err.count("not in Unicode normal form C") == 1
    assert "6 of 6 texts" in err
    assert "6 rows not NFC" in err
    code, _, err = run(*decomposed, "-o", "c.npy", "--nfc")
    assert code == 0
    assert is_one_line(err)
    assert Path("c.npy").read_bytes() == Path("a.npy").read_bytes() != Path("b.npy").read_bytes()
    assert run("--nfc", "--query", decomposed[0], *SENTENCES)[1] == run("--query", SENTENCES[0], *SENTENCES)[1]
    assert run("--nfc", "--prompt", decomposed[0], *SENTENCES)[1] == run("--prompt", SENTENCES[0], *SENTENCES)[1]


def test_E9_row_i_is_line_i(run, monkeypatch, model):
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 300)
    texts = [SENTENCES[int(n)] for n in np.random.default_rng(0).integers(len(SENTENCES), size=1000)]
    Path("a.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    run("-i", "a.txt", "-o", "a.npy")
    alone = dict(zip(SENTENCES, SentenceEncoder.from_pretrained(model, device="cpu").encode(SENTENCES), strict=True))
    vectors = np.load("a.npy")
    np.testing.assert_allclose(vectors, [alone[text] for text in texts], atol=1e-5)
    assert min(np.abs(a - b).max() for a in alone.values() for b in alone.values() if a is not b) > 1e-3


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors", "jsonl"])
def test_E10_the_same_command_writes_the_same_bytes(run, form):
    texts = sentences(50)
    run(*texts, "-o", f"a.{form}")
    run(*texts, "-o", f"b.{form}")
    assert Path(f"a.{form}").read_bytes() == Path(f"b.{form}").read_bytes()


def test_E12_a_row_that_is_not_finite_is_named(run, monkeypatch):
    load_model = encode_run.load_model

    def poisoned(*args):
        model = load_model(*args)
        model.encoder.embeddings.token.weight.data[model.tokenizer.backend.token_to_id("물")] = float("nan")
        return model

    monkeypatch.setattr(encode_run, "load_model", poisoned)
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 2)
    code, _, err = run("밥", "빵", "길", "물", "밥", "-o", "a.npy")
    assert code == 6
    assert "encode.py: row 3: the vector is NaN or infinite" in err
    assert not Path("a.npy").exists()


def memory_for(monkeypatch, rows):
    """A machine whose memory suffices for batches of so many rows."""
    forward = bert.Bert.forward

    def limited(self, input_ids, *rest):
        if len(input_ids) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids, *rest)

    monkeypatch.setattr(bert.Bert, "forward", limited)


def test_E13_out_of_memory_halves_the_batches_and_says_so_once(run, monkeypatch):
    texts = sentences(60)
    run(*texts, "-o", "a.npy")
    memory_for(monkeypatch, 3)
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 20)
    code, _, err = run(*texts, "-o", "b.npy")
    assert code == 0
    assert err.count("out of memory") == 1
    np.testing.assert_allclose(np.load("b.npy"), np.load("a.npy"), atol=1e-5)


def test_E13_too_little_memory_for_one_text_is_one_line(run, monkeypatch):
    memory_for(monkeypatch, 0)
    code, _, err = run("밥", "-o", "a.npy")
    assert code == 2
    assert is_one_line(err)
    assert "row 0: out of memory for this text alone" in err
    assert left_in(".") == []


def test_E14_a_full_disk_keeps_the_old_output(run, monkeypatch):
    Path("a.npy").write_bytes(b"old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for form in ("npy", "npz", "safetensors", "jsonl"):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            code, _, err = run(*SENTENCES, "-o", f"a.{form}", "--overwrite")
        assert code == 5
        assert err == f"encode.py: a.{form}: No space left on device\n"
        assert left_in(".") == ["a.npy"]
    assert Path("a.npy").read_bytes() == b"old"


def test_E14_a_limit_in_mid_write_keeps_what_was_noted(run, start, tmp_path):
    texts = sentences(100)
    Path("a.txt").write_text("\n".join(texts), encoding="utf-8")
    import resource

    process = start(
        *("-i", "a.txt", "-o", "a.npy"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)),  # 100 rows have 9728 bytes
    )
    _, err = process.communicate()
    assert process.returncode == 5
    assert b"Traceback" not in err
    assert err.endswith(b"encode.py: a.npy: File too large\n")
    assert left_in(".") == [".a.npy.journal", ".a.npy.part", "a.txt"]


def test_E14_a_full_device_on_standard_output_is_one_line(start):
    with open("/dev/full", "wb") as full:
        process = start("밥", stdout=full)
        _, err = process.communicate()
    assert process.returncode == 5
    assert err == b"encode.py: standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("sent", "expected", "form"),
    [(signal.SIGINT, 130, "npy"), (signal.SIGTERM, 143, "jsonl"), (signal.SIGKILL, -9, "safetensors")],
)
def test_E15_an_interrupted_run_is_resumed_to_the_same_bytes(run, start, monkeypatch, sent, expected, form):
    lines = [sentence + "\n" for sentence in sentences(60)]
    process = start("-i", "-", "-o", f"a.{form}")
    process.stdin.write("".join(lines[:30]).encode())  # three blocks of eight, and a part of the fourth
    process.stdin.flush()
    journal = Path(f".a.{form}.journal")
    deadline = time.monotonic() + 60
    while not (journal.exists() and json.loads(journal.read_bytes())["rows"] == 24) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == expected
    assert b"Traceback" not in err
    assert left_in(".") == [f".a.{form}.journal", f".a.{form}.part"]

    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 8)
    text = "".join(lines).encode()
    assert run("-o", f"b.{form}", stdin=text)[0] == 0
    code, _, err = run("-o", f"a.{form}", "--resume", stdin=text)
    assert code == 0
    assert "36 rows" in err  # of this run
    assert Path(f"a.{form}").read_bytes() == Path(f"b.{form}").read_bytes()
    assert left_in(".") == [f"a.{form}", f"a.{form}.json", f"b.{form}", f"b.{form}.json"]


@pytest.fixture
def interrupted(run, monkeypatch):
    """A run of encode.py that was interrupted after 24 of 30 rows."""
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 8)
    Path("a.txt").write_text("\n".join(sentences(30)), encoding="utf-8")
    with monkeypatch.context() as patch:
        blocks = encode_run.blocks

        def until_interrupted(texts):
            for number, block in enumerate(blocks(texts)):
                if number == 3:
                    raise KeyboardInterrupt
                yield block

        patch.setattr(encode_run, "blocks", until_interrupted)
        code, _, err = run("-i", "a.txt", "-o", "a.npy")
    assert code == 130
    assert err == ("encode.py: note: 24 rows are kept beside a.npy; --resume goes on from there\nencode.py: interrupted\n")
    return run


def test_E15_another_input_or_option_is_not_mixed_in(interrupted, tmp_path, monkeypatch):
    run = interrupted
    Path("b.txt").write_text("\n".join(["밥", *sentences(30)[1:]]), encoding="utf-8")
    Path("c.txt").write_text("\n".join(sentences(10)), encoding="utf-8")
    other = tiny_folder(tmp_path.parent / f"{tmp_path.name} 다른 모델", seed=1)
    changes = [["-i", "b.txt"], ["-i", "c.txt"], ["--normalize"], ["--nfc"], ["--max-length", 9], ["-m", other]]
    for change in [*changes, ["--dtype", "int8" if HAS_INT8 else "bfloat16"]]:
        code, _, err = run("-i", "a.txt", "-o", "a.npy", "--resume", *change)
        assert code == 2, change
        assert "start anew without --resume" in err
        assert Path(".a.npy.journal").exists()  # a slip of the user costs nothing
    with monkeypatch.context() as patch:
        patch.setattr(devices, "batch_budget", lambda *_: (16, 0))  # as another version of the program might have it
        assert run("-i", "a.txt", "-o", "a.npy", "--resume")[0] == 2
    assert run("-i", "a.txt", "-o", "a.npy", "--resume")[0] == 0
    run("-i", "a.txt", "-o", "b.npy")
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_E15_without_resume_all_is_done_anew(interrupted):
    assert "30 rows" in interrupted("-i", "a.txt", "-o", "a.npy")[2]
    assert left_in(".") == ["a.npy", "a.npy.json", "a.txt"]


def test_E15_what_is_left_is_not_trusted_when_it_is_damaged(interrupted):
    os.truncate(".a.npy.part", 100)
    assert interrupted("-i", "a.txt", "-o", "a.npy", "--resume")[0] == 0
    interrupted("-i", "a.txt", "-o", "b.npy")
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_a_stream_that_ends_with_a_full_block(run, monkeypatch, model):
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 8)
    texts = sentences(16)
    code, _, err = run("-o", "a.npy", stdin="\n".join(texts).encode())
    assert code == 0
    assert "16 rows" in err
    assert left_in(".") == ["a.npy", "a.npy.json"]
    expected = SentenceEncoder.from_pretrained(model, device="cpu").encode(texts)
    np.testing.assert_allclose(np.load("a.npy"), expected, atol=1e-5)


def test_E15_rows_before_a_line_that_cannot_be_read_are_kept(run, monkeypatch):
    monkeypatch.setattr("minisbert.cli.encode_run.ROWS_AT_ONCE", 8)
    lines = [sentence.encode() for sentence in sentences(20)]
    Path("a.txt").write_bytes(b"\n".join([*lines, b"\xff"]))
    code, _, err = run("-i", "a.txt", "-o", "a.npy")
    assert code == 2
    assert err.startswith("encode.py: note: 16 rows are kept beside a.npy; --resume goes on from there\n")
    Path("a.txt").write_bytes(b"\n".join(lines))
    assert run("-i", "a.txt", "-o", "a.npy", "--resume")[0] == 0
    run("-i", "a.txt", "-o", "b.npy")
    assert Path("a.npy").read_bytes() == Path("b.npy").read_bytes()


def test_E15_rows_are_named_by_their_place_in_the_input(interrupted, monkeypatch):
    def poisoned(*args, load=encode_run.load_model):
        model = load(*args)
        model.encoder.embeddings.token.weight.data[model.tokenizer.backend.token_to_id("밥")] = float("nan")
        monkeypatch.setattr(model, "fingerprint", lambda: json.loads(Path(".a.npy.journal").read_bytes())["run"]["weights"])
        return model

    monkeypatch.setattr(encode_run, "load_model", poisoned)
    code, _, err = interrupted("-i", "a.txt", "-o", "a.npy", "--resume")
    first = next(row for row, sentence in enumerate(sentences(30)) if row >= 24 and "밥" in sentence)
    assert code == 6
    assert f"encode.py: row {first}: the vector is NaN or infinite" in err


def test_two_runs_do_not_write_one_output(run):
    fcntl = pytest.importorskip("fcntl")
    with open(".a.npy.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        code, _, err = run("밥", "-o", "a.npy")
    assert code == 2
    assert "another run is writing it" in err


def test_E16_an_output_that_exists_is_kept(run, monkeypatch):
    Path("a.npy").write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.delattr(encode_run, "load_model")  # not called
        code, _, err = run("밥", "-o", "a.npy")
    assert code == 2
    assert "--overwrite" in err
    assert Path("a.npy").read_bytes() == b"old"
    assert run("밥", "-o", "a.npy", "--overwrite")[0] == 0
    assert np.load("a.npy").shape == (1, 24)


def test_E16_a_folder_that_cannot_be_written_is_refused_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.delattr(encode_run, "load_model")
    assert run("밥", "-o", "없음/a.npy") == (5, "", "encode.py: 없음/a.npy: No such file or directory\n")
    assert run("밥", "-o", f"{'가' * 90}.npy")[0] == 5

    def read_only(self, **_):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "touch", read_only)
    assert run("밥", "-o", "a.npy") == (5, "", "encode.py: a.npy: Permission denied\n")


def test_E17_rows_out_are_lines_in(run):
    text = "\ufeff밥\r\n한\u2028남자\n\n여자\u0085가\x0b\n  \n마지막".encode()
    code, out, _ = run("-i", "-", stdin=text)
    assert code == 0
    assert [json.loads(line)["text"] for line in out.split("\n")[:-1]] == [
        *("밥", "한\u2028남자", "", "여자\u0085가\x0b", "  ", "마지막")
    ]
    Path("a.txt").write_bytes(text)
    assert run("-i", "a.txt")[1] == run(stdin=text)[1] == out


def test_E18_an_input_in_another_encoding_is_named_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.delattr(encode_run, "load_model")
    for code_page, hint in (("cp949", "iconv -f cp949 -t utf-8"), ("utf-16", "iconv -f utf-16 -t utf-8")):
        Path("a.txt").write_text("고양이는 물을 마신다.\n", encoding=code_page)
        code, _, err = run("-i", "a.txt", "-o", "a.npy")
        assert code == 2
        assert is_one_line(err)
        assert "a.txt:1: " in err
        assert hint in err


def test_E18_a_bad_line_far_down_leaves_no_output(run):
    Path("a.txt").write_bytes("밥\n빵\n".encode() + "고양이".encode("cp949"))
    code, _, err = run("-i", "a.txt", "-o", "a.npy")
    assert code == 2
    assert "a.txt:3: not UTF-8" in err
    assert left_in(".") == ["a.txt"]


def test_E19_memory_is_flat(model, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    intervals = list(soak_encode.soak(model, rows=60_000, interval=15_000, output=tmp_path / "x.npy"))
    assert np.load(tmp_path / "x.npy", mmap_mode="r").shape == (60_000, 24)
    warm, *_, last = (mib for _, _, mib in intervals[1:])
    assert last < warm + 20


def test_E20_a_reader_that_has_seen_enough_ends_the_run_in_peace(start, tmp_path):
    (tmp_path / "a.txt").write_text("\n".join(sentences(1000)), encoding="utf-8")
    process = start("-i", "a.txt")
    assert json.loads(process.stdout.readline())["text"] == sentences(1)[0]
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""


def test_E20_a_reader_that_never_reads_is_no_failure(start):
    process = start("--similarity", "밥", "빵")
    process.stdout.close()
    assert process.wait() == 0
    assert process.stderr.read() == b""


@pytest.fixture
def run_two(start, monkeypatch):
    """Runs encode.py in two processes, as torchrun does; returns standard output and standard error of each."""

    def run_two(*arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": "2"}
        for name, value in address.items():
            monkeypatch.setenv(name, value)
        processes = []
        for rank in ("0", "1"):
            monkeypatch.setenv("RANK", rank)
            monkeypatch.setenv("LOCAL_RANK", rank)
            processes.append(start(*arguments))
        printed = [process.communicate(timeout=60) for process in processes]
        assert [process.returncode for process in processes] == [0, 0]
        return printed

    return run_two


@pytest.mark.parametrize("rows", [0, 1, 30])
def test_two_processes_of_torchrun_write_what_one_writes(run, run_two, tmp_path, rows):
    texts = sentences(rows)
    (tmp_path / "a.txt").write_text("\n".join(texts), encoding="utf-8")
    run("-i", "a.txt", "-o", "one.npy")
    (_, report), (printed, silence) = run_two("-i", "a.txt", "-o", "two.npy")
    assert report.decode().startswith(f"encode.py: {rows} rows")
    assert printed == silence == b""
    np.testing.assert_allclose(np.load("two.npy"), np.load("one.npy"), atol=1e-6)
    assert left_in(tmp_path) == ["a.txt", "one.npy", "one.npy.json", "two.npy", "two.npy.json"]


def test_two_processes_of_torchrun_answer_a_query_once(run, run_two):
    arguments = ("--query", unicodedata.normalize("NFD", "밥을 먹는다"), "--top-k", 3, *sentences(30))
    _, answer, _ = run(*arguments)
    (printed, said), second = run_two(*arguments)
    assert printed.decode() == answer
    assert [line[:16] for line in said.decode().splitlines()] == ["encode.py: note:", "encode.py: 30 ro"]
    assert second == (b"", b"")


def test_torchrun_cannot_share_standard_input(run, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    for arguments in (["-i", "-"], ["-i", "a.txt", "-o", "a.npy", "--resume"]):
        code, _, err = run(*arguments)
        assert (code, err) == (
            2,
            "encode.py: --resume and standard input are for one process; run it without torchrun\n",
        )


def test_torchrun_without_the_device_is_one_line(run, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    code, _, err = run("밥", "--device", "abacus")
    assert code == 2
    assert is_one_line(err) and "device 'abacus' cannot be used" in err


def test_what_is_done_is_printed_before_a_failure(model, tmp_path):
    """The script itself ends without Python's usual clean-up."""
    lines = [*(json.dumps({"text": "밥"}) for _ in range(encode_run.ROWS_AT_ONCE)), "[]"]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [sys.executable, ROOT / "encode.py", "-m", model, "--device", "cpu", "-i", "a.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=100)
    assert done.returncode == 2
    assert done.stdout.count(b"\n") == encode_run.ROWS_AT_ONCE
    assert json.loads(done.stdout.splitlines()[-1])["text"] == "밥"


def test_the_query_is_not_counted(run):
    decomposed = unicodedata.normalize("NFD", "밥을 먹는다")
    _, _, err = run("--query", decomposed, *SENTENCES[:3])
    note, report = err.splitlines()
    assert note == "encode.py: note: the query is not in Unicode normal form C (decomposed Hangul): pass --nfc"
    assert report.startswith("encode.py: 3 rows, ") and " 0 rows not NFC, " in report


def test_the_rows_of_an_earlier_run_are_told(interrupted, monkeypatch):
    """A run that fails before its first block leaves what an earlier one has noted."""
    code, _, err = interrupted("-i", "a.txt", "-o", "a.npy", "--prompt-name", "없음")
    assert code == 2
    assert err.startswith("encode.py: note: 24 rows are kept beside a.npy; --resume goes on from there\n")


@pytest.mark.skipif(not HAS_INT8, reason="this processor has no 8-bit products")
def test_int8(run, model, monkeypatch):
    monkeypatch.setattr(encode_run, "has_vnni", lambda: True)
    assert run(*SENTENCES, "-o", "a.npy", "--dtype", "int8", "--quiet") == (0, "", "")
    monkeypatch.setattr(encode_run, "has_vnni", lambda: False)
    code, _, err = run(*SENTENCES, "-o", "b.npy", "--dtype", "int8", "--quiet")
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith("encode.py: note: this processor has no VNNI instructions: int8 needs less memory, but")
    expected = SentenceEncoder.from_pretrained(model, device="cpu", dtype="int8").encode(SENTENCES)
    np.testing.assert_array_equal(np.load("a.npy"), expected)
    code, _, err = run(*SENTENCES, "--dtype", "int8", "--compile")
    assert code == 2
    assert err == "encode.py: --compile does not go together with --dtype int8; leave one out\n"


def test_int8_on_a_processor_that_cannot(start, monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    process = start("밥", "--dtype", "int8")
    out, err = process.communicate()
    assert (process.returncode, out) == (2, b"")
    assert is_one_line(err.decode())
    assert "use float32 or bfloat16" in err.decode()


def test_the_input_is_never_the_output(run):
    Path("a.jsonl").write_text('{"text": "밥", "점수": 3}\n', encoding="utf-8")
    code, _, err = run("-i", "a.jsonl", "-o", "a.jsonl", "--overwrite")
    assert (code, "a.jsonl: is the input too; name another output" in err) == (2, True)
    assert Path("a.jsonl").read_text(encoding="utf-8") == '{"text": "밥", "점수": 3}\n'
    assert run("-i", "-", "-o", "a.jsonl", "--overwrite", stdin="밥\n".encode())[0] == 0  # that is another one


def test_the_name_of_a_file_as_a_text_is_told(run):
    Path("글.txt").write_text("밥\n", encoding="utf-8")
    code, out, err = run("글.txt")
    assert code == 0
    assert '"text": "글.txt"' in out
    assert "note: 글.txt is taken as a text; -i reads the file of this name" in err
