"""The process behind `Worker` in test_hub.py: takes orders as lines of JSON and answers each with one.

An order forbids what it names (sockets, writes, links) while it is carried out: the arguments of `local_folder`, or the
"argv" of encode.py.
"""

import contextlib
import errno
import io
import json
import os
import sys
import time
import warnings
from typing import Any

from minisbert.cli import encode
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


def encode_answer(argv: list[str]) -> dict[str, Any]:
    """What encode.py prints, and its exit code."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        exit_code = encode.main(argv)
    return {"exit_code": exit_code, "out": out.getvalue(), "err": err.getvalue()}


def folder_answer(order: dict[str, Any]) -> dict[str, Any]:
    """The folder or the error, and the warnings."""
    answer: dict[str, Any]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            answer = {"folder": str(hub.local_folder(**order)), "exit_code": 0}
        except MinisbertError as error:
            answer = {"error": str(error), "exit_code": error.exit_code}
    return answer | {"warnings": [str(warning.message) for warning in caught]}


if __name__ == "__main__":
    sys.addaudithook(guard)
    os.symlink = symlink_if_allowed
    for line in sys.stdin:
        order = json.loads(line)
        forbidden[:] = order.pop("forbid")
        start = time.monotonic()
        answer = encode_answer(order["argv"]) if "argv" in order else folder_answer(order)
        forbidden.clear()
        print(json.dumps(answer | {"seconds": time.monotonic() - start}), flush=True)
