"""The client of the Hub in a process of its own: it reads its settings when it is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz01234567"


class Worker:
    """A process with the client, which does what `local_folder` and `encode` are told."""

    def __init__(self, endpoint: str, home: Path, **environment: str) -> None:
        self.cache = home / "hub"
        self.errors = (home.parent / f"{home.name}.stderr").open("a+")
        settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN, **environment}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.storage.hub_worker"],
            env=clean_environment() | settings,
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def send(self, forbid: tuple[str, ...] = (), **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"forbid": forbid, **order}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.errors.seek(0)
        said = self.errors.read()
        assert said == "", f"beside the messages, standard error must stay empty: {said}"
        return json.loads(line)

    def download(self, source: str, **order: Any) -> dict[str, Any]:
        self.send(source=source, **order)
        return self.receive()

    def encode(self, *argv: str, **order: Any) -> dict[str, Any]:
        self.send(argv=argv, **order)
        return self.receive()

    def train(self, *argv: str) -> dict[str, Any]:
        self.send(argv=argv, command="train")
        return self.receive()

    def push(self, folder: Path, name: str, **options: Any) -> dict[str, Any]:
        """`push_to_hub` of the model in a folder; "url" is what it returns."""
        self.send(push=[str(folder), name], options=options)
        return self.receive()

    def files(self, name: str) -> list[str]:
        """What is in the cache of a model, without our own records."""
        folder = self.cache / f"models--{name.replace('/', '--')}"
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())

    def stop(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        self.process.stdout.close()
        self.errors.close()


def clean_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
    return kept | {"PYTHONPATH": str(PROJECT), "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def check_refused(answer: dict[str, Any], *words: str) -> str:
    """One line, exit code 4, the words in it and no token; returns the line."""
    assert answer["exit_code"] == 4, answer
    message: str = answer["error"] if "error" in answer else answer["err"].removesuffix("\n")
    assert "\n" not in message
    assert TOKEN not in json.dumps(answer)
    for word in words:
        assert word in message
    return message
