"""Proves that no damage to a model folder ends in anything but vectors or one line.

Tiny models of all families and forms are damaged one file at a time, by bits, bytes and JSON values drawn from a
seeded generator. Each must then either load and give finite vectors, or be refused by a `ModelError` or a
`NonFiniteError` with a one-line message; no other exception, no message of a library on standard error, no code run,
no connection, no memory or time beyond a bound. The cases run in a process of their own, so that even a crash or a
hang is a result. More of them: pytest tests/faults/test_fuzz.py --fuzz-cases 20000
"""

import faulthandler
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from minisbert import SentenceEncoder
from minisbert.errors import ModelError, NonFiniteError
from tests.model_files import join_safetensors, split_safetensors, xlm_roberta_folder
from tests.tiny import SENTENCES, tiny_folder

SECONDS = 20  # for one case, on a busy machine; the usual is 0.02
MEGABYTES = 100  # by which one case may raise the peak of memory
ADDRESS_SPACE = 8 << 30  # bytes beyond what the process begins with
TEXTS = [*SENTENCES, "", "𓀀 Ω 漢字 e\u0301 ﬁ ① \u00ad\n", "밥을 먹는다 " * 40]

# Files by name: one folder, which is damaged and repaired again and again.
Files = dict[str, bytes]


def whole_folders(path: Path) -> list[Files]:
    """Folders in every form in which weights and tokenizers come."""
    saved = {kind: read_files(tiny_folder(path / kind, kind)) for kind in ("bert", "roberta", "deberta-v2")}
    tensors = safetensors.torch.load(saved["roberta"]["model.safetensors"])
    folders = list(saved.values())
    for zipped in (True, False):
        pickled = io.BytesIO()
        torch.save(tensors, pickled, _use_new_zipfile_serialization=zipped)
        folders.append(saved["roberta"] | {"model.safetensors": b"", "pytorch_model.bin": pickled.getvalue()})
    tensors = safetensors.torch.load(saved["deberta-v2"]["model.safetensors"])
    index = {name: f"model-{position % 2}.safetensors" for position, name in enumerate(tensors)}
    shards = {
        file: safetensors.torch.save({name: tensors[name] for name in tensors if index[name] == file})
        for file in ("model-0.safetensors", "model-1.safetensors")
    }
    shards["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": index}).encode()
    folders.append(saved["deberta-v2"] | shards | {"model.safetensors": b""})
    folders.append(saved["bert"] | {"tokenizer.json": b""})  # vocab.txt counts
    folders.append(read_files(xlm_roberta_folder(path / "xlm-roberta")))
    return [{name: data for name, data in folder.items() if data} for folder in folders]


def read_files(folder: Path) -> Files:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def damaged(data: bytes, name: str, rng: random.Random) -> bytes:
    """The bytes of a file with something wrong in them."""
    if name.endswith(".json") and rng.random() < 0.6:
        return json.dumps(damaged_json(json.loads(data), rng)).encode()
    if name.endswith(".safetensors") and rng.random() < 0.4:
        header, body = split_safetensors(data)
        return join_safetensors(damaged_json(header, rng), body)
    if name.endswith(".safetensors") and rng.random() < 0.5:  # the header again, byte by byte
        end = 8 + int.from_bytes(data[:8], "little")
        return damaged_bytes(data[:end], rng) + data[end:]
    return damaged_bytes(data, rng)


def damaged_bytes(data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 5))):
        begin = rng.randrange(len(data) + 1)
        end = min(len(data), begin + rng.choice((1, 1, 4, 30, 1000)))
        old = data[begin:end]
        flipped = bytes(byte ^ 1 << rng.randrange(8) for byte in old)
        new = rng.choice((flipped, flipped, b"", old * 2, rng.randbytes(len(old)), b"\0" * len(old), b"\xff" * len(old)))
        data = data[:begin] + new + data[end:]
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data


VALUES = (None, True, False, 0, -1, 1, 2, 7, 2**31, 2**63, 10**30, 1e-300, 1e308, 0.5, "", "a", "밥", "[UNK]", "../x")
STRUCTURES: tuple[Any, ...] = ([], {}, [[]], {"a": 1}, [0] * 1000, "a" * 10_000, [-1], {"type": "Sequence"})


def damaged_json(value: Any, rng: random.Random) -> Any:
    """The value with one of its parts replaced, deleted or doubled."""
    parts = list(containers(value))
    if not parts:
        return rng.choice(VALUES)
    part = rng.choice(parts)
    key = rng.choice(list(part) if isinstance(part, dict) else range(len(part)))
    other = rng.choice(parts)
    action = rng.randrange(6)
    if action == 0:
        del part[key]
    elif action == 1 and isinstance(part, dict):
        part[rng.choice(("a", "type", "Regex", str(key) + "s"))] = part[key]
    elif action == 2:
        part[key] = json.loads(json.dumps(other))
    elif action == 3:
        part[key] = rng.choice(STRUCTURES)
    else:
        part[key] = rng.choice(VALUES)
    return value


def containers(value: Any) -> Iterator[Any]:
    """All objects and lists in a JSON value that are not empty; in large ones not every inner one."""
    if isinstance(value, dict | list) and value:
        yield value
        for inner in value.values() if isinstance(value, dict) else value[:20]:
            yield from containers(inner)


def outcome(folder: Path) -> str:
    """Load a folder and encode; what came of it, "ok" or the message."""
    try:
        vectors = SentenceEncoder.from_pretrained(folder, device="cpu").encode(TEXTS)
    except (ModelError, NonFiniteError) as error:
        assert str(error).isprintable() and len(str(error)) < 2000, "the message is not one short line"
        return f"{type(error).__name__}: {error}"
    assert np.isfinite(vectors).all()
    return "ok"


def forbid(event: str, _: object) -> None:
    """An audit hook: what no model folder may bring about."""
    if event in ("os.system", "os.exec", "os.fork", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        raise SystemExit(f"a folder caused {event}")


def status(field: str) -> int:
    """A number from /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def run_cases(count: int) -> None:
    """Run cases 0 to count - 1; prints what came of each as a line of JSON."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as root:
        folders = whole_folders(Path(root) / "saved")
        paths = [Path(root) / str(number) for number in range(len(folders))]
        for path, files in zip(paths, folders, strict=True):
            for name, data in files.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
            print(json.dumps(["whole", outcome(path)]), flush=True)
        resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") + ADDRESS_SPACE,) * 2)
        sys.addaudithook(forbid)
        for case in range(count):
            rng = random.Random(case)
            number = rng.randrange(len(folders))
            name = rng.choice(sorted(folders[number]))
            faulthandler.dump_traceback_later(SECONDS, exit=True)
            before = status("VmHWM")
            (paths[number] / name).write_bytes(damaged(folders[number][name], name, rng))
            print(f"case {case}: {number} {name}", file=sys.stderr, flush=True)
            try:
                result = outcome(paths[number])
                assert status("VmHWM") - before < MEGABYTES << 20, "too much memory"
                print(json.dumps([name, result]), flush=True)
            except Exception:
                traceback.print_exc()
            (paths[number] / name).write_bytes(folders[number][name])
        faulthandler.cancel_dump_traceback_later()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the use of memory is read from /proc")
def test_damaged_folders_load_or_are_refused(request):
    count = request.config.getoption("--fuzz-cases")
    result = subprocess.run(
        [sys.executable, "-m", "tests.faults.test_fuzz", str(count)], capture_output=True, text=True, check=False
    )
    errors = result.stderr.splitlines()
    # Each case announces itself on standard error; anything else there was written by a library or is a traceback.
    noise = [position for position, line in enumerate(errors) if not line.startswith("case ")]
    assert not noise, "\n".join(errors[noise[0] - 1 : noise[0] + 100])
    assert result.returncode == 0, (result.returncode, errors[-1])
    outcomes = [json.loads(line) for line in result.stdout.splitlines()]
    whole = [outcome for name, outcome in outcomes if name == "whole"]
    assert whole == ["ok"] * 8
    assert len(outcomes) == len(whole) + count
    loaded = sum(outcome == "ok" for _, outcome in outcomes[len(whole) :])
    assert 0.1 * count < loaded < 0.9 * count  # neither harmless nor hopeless


if __name__ == "__main__":
    run_cases(int(sys.argv[1]))
