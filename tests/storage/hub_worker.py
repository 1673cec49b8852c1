"""The process behind `Worker` in hub_client.py: takes orders as lines of JSON and answers each with one.

An order forbids what it names (sockets, writes, links) while it is carried out: the arguments of `local_folder`, the
"argv" of encode.py or train.py, or what to "push".
"""

import contextlib
import errno
import io
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

from minisbert import SentenceEncoder
from minisbert.cli import encode, train
from minisbert.errors import MinisbertError
from minisbert.storage import hub

WRITES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.utime", "os.truncate")

forbidden: list[str] = []
symlink = os.symlink


def guard(event: str, args: Any) -> None:
    """An audit hook: raises for what is forbidden."""
    if "sockets" in forbidden and event.startswith("socket."):
        raise RuntimeError("a socket was used: " + event)
    if "writes" in forbidden:
        writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and args[0] != os.devnull
        if writes or event in WRITES:
            raise OSError(errno.EROFS, "Read-only file system", str(args[0]))


def symlink_if_allowed(*args: Any, **options: Any) -> None:
    """In place of os.symlink, for a file system without links."""
    if "links" in forbidden:
        raise OSError(errno.EPERM, "Operation not permitted")
    symlink(*args, **options)


def command_answer(argv: list[str], command: str = "encode") -> dict[str, Any]:
    """What encode.py or train.py prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        exit_code = {"encode": encode, "train": train}[command].main(argv)
    return {"exit_code": exit_code, "out": out.getvalue(), "err": err.getvalue()}


def push_answer(folder: str, name: str, options: dict[str, Any]) -> dict[str, str]:
    """What `push_to_hub` returns."""
    return {"url": SentenceEncoder.from_pretrained(folder, device="cpu").push_to_hub(name, **options)}


def python_answer(call: Callable[[], dict[str, str]]) -> dict[str, Any]:
    """What a function answers or the error, and the warnings."""
    answer: dict[str, Any]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            answer = {**call(), "exit_code": 0}
        except MinisbertError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
    return answer | {"warnings": [str(warning.message) for warning in caught]}


def answer_to(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out an order."""
    if "argv" in order:
        return command_answer(**order)
    if "push" in order:
        return python_answer(lambda: push_answer(*order["push"], order["options"]))
    return python_answer(lambda: {"folder": str(hub.local_folder(**order))})


if __name__ == "__main__":
    hub.FIRST_PAUSE = 0.01  # attempts are counted, not timed
    sys.addaudithook(guard)
    os.symlink = symlink_if_allowed
    for line in sys.stdin:
        order = json.loads(line)
        forbidden[:] = order.pop("forbid")
        start = time.monotonic()
        answer = answer_to(order)
        forbidden.clear()
        print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
