"""For all tests: no connection leaves this machine, and one thread: results must not depend on the number of cores."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
import torch

torch.set_num_threads(1)

# Helpers that import the reference libraries; they hold no tests, and need not be there for the tests that do.
collect_ignore = [
    "golden/record.py",
    "parity/reference.py",
    "parity/reference_training.py",
    "parity/settings_fuzz.py",
    "benchmarks",
    "clients/snippets",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of single tests."""
    parser.addoption("--fuzz-cases", type=int, default=300, help="damaged model folders to try in test_fuzz.py")


@pytest.fixture(autouse=True)
def no_network(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let sockets connect to the loopback interface only; tests marked `hub` are for the open network."""
    if request.node.get_closest_marker("hub") is None:
        connect = socket.socket.connect

        def guarded(self: socket.socket, address: Any) -> None:
            if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
                raise OSError(f"tests run offline; refused to connect to {address}")
            connect(self, address)

        monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
