"""Proves that every kind of failure ends in one line and its exit code, said by the processes that it concerns."""

import os
import signal
import warnings

import pytest
import torch

from minisbert.cli.shared import Say, Terminated, command_parser, exit_code_of
from minisbert.errors import HubError, InputError, ModelError, NonFiniteError, ProcessError


@pytest.fixture
def run(capsys):
    """Runs a program that raises an error, or calls a function; returns exit code and standard error."""
    handler = signal.getsignal(signal.SIGTERM)

    def run(action, **options):
        def program():
            if isinstance(action, BaseException):
                raise action
            return action()

        code = exit_code_of(program, Say("encode.py"), **options)
        return code, capsys.readouterr().err

    yield run
    signal.signal(signal.SIGTERM, handler)


FAILURES = [
    (InputError("bad row"), 2, "bad row"),
    (InputError("bad row", row=3), 2, "row 3: bad row"),
    (ModelError("no weights"), 3, "no weights"),
    (HubError("no network"), 4, "no network"),
    (ProcessError("the other one"), 5, "the other one"),
    (NonFiniteError("NaN"), 6, "NaN"),
    (FileNotFoundError(2, "No such file or directory", "a.txt"), 5, "a.txt: No such file or directory"),
    (OSError(28, "No space left on device"), 5, "out.npy: No space left on device"),
    (MemoryError(), 2, "out of memory; buy more"),
    (torch.OutOfMemoryError("CUDA out of memory"), 2, "out of memory; buy more"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "out of memory; buy more"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (Terminated(), 143, "terminated"),
]


@pytest.mark.parametrize(("error", "code", "line"), FAILURES, ids=[type(row[0]).__name__ for row in FAILURES])
def test_failures(run, error, code, line):
    assert run(error, output="out.npy", memory_advice="buy more") == (code, f"encode.py: {line}\n")


def test_a_mistake_of_ours_is_not_hidden(run):
    with pytest.raises(RuntimeError, match="shape"):
        run(RuntimeError("shape mismatch"))


def test_a_signal_ends_the_program(run):
    assert run(lambda: os.kill(os.getpid(), signal.SIGTERM)) == (143, "encode.py: terminated\n")


def test_a_program_may_have_an_exit_code_of_its_own(run):
    assert run(lambda: 143) == (143, "")
    assert run(lambda: None) == (0, "")


def test_warnings_are_said_once(run):
    def program():
        for _ in range(2):
            warnings.warn("batches are halved", stacklevel=1)

    assert run(program) == (0, "encode.py: note: batches are halved\n")


def test_of_several_processes_the_first_one_speaks_except_for_failures(run, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert run(lambda: warnings.warn("batches are halved", stacklevel=1)) == (0, "")
    assert run(KeyboardInterrupt()) == (130, "")
    assert run(InputError("bad row")) == (2, "encode.py: process 1: bad row\n")


def test_standard_error_that_nobody_reads_is_no_failure(monkeypatch):
    def broken(_):
        raise BrokenPipeError

    monkeypatch.setattr("sys.stderr.write", broken)
    Say("encode.py")("a note")


def test_commands_in_the_help_are_those_of_the_user():
    text = "Summary.\n\npython encode.py TEXT\ntorchrun --nproc-per-node 2 encode.py TEXT"
    assert command_parser("encode.py", text, "encode.py").epilog == text.partition("\n\n")[2]
    assert command_parser("minisbert encode", text, "encode.py").epilog == (
        "minisbert encode TEXT\ntorchrun --nproc-per-node 2 -m minisbert.cli.main encode TEXT"
    )
