"""What the command lines share: their parser, their messages, and the one way from a failure to an exit code."""

import argparse
import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from minisbert.errors import FILE_SYSTEM_EXIT_CODE, INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE, InputError, MinisbertError
from minisbert.progress import ProgressBar

PACKAGE = Path(__file__).resolve().parents[1]
PACKAGED_MODEL = PACKAGE / "default_model"  # pyproject.toml puts weights/ko-mini there when the package is built

DTYPES = ("float32", "bfloat16", "float16", "int8")  # for encoding


def weights_folder() -> Path:
    """Where models and training data go by default: weights/ of the checkout; without one, of the current folder."""
    return Path("weights") if PACKAGED_MODEL.exists() else PACKAGE.parent / "weights"


def default_model() -> Path:
    """The folder of the model that comes with minisbert."""
    return PACKAGED_MODEL if PACKAGED_MODEL.exists() else weights_folder() / "ko-mini"


class OneLineParser(argparse.ArgumentParser):
    """Reports bad usage in one line, like every other failure."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(InputError.exit_code, f"{self.prog}: {message} (see --help)\n")


def command_parser(prog: str, text: str | None, script: str = "") -> OneLineParser:
    """A parser whose help is `text`, the docstring of its module: a summary, an empty line, commands to copy.

    They call `script`. If `prog` is "minisbert encode", they are rewritten so.
    """
    summary, _, rest = (text or "").partition("\n\n")
    command, _, name = prog.partition(" ")
    if script and command == "minisbert":
        rest = rest.replace(f"python {script} ", f"{prog} ").replace(f" {script} ", f" -m minisbert.cli.main {name} ")
    return OneLineParser(prog, description=summary, epilog=rest, formatter_class=argparse.RawDescriptionHelpFormatter)


@dataclass(frozen=True)
class Say:
    """Says a message in a line that begins with the name of the command: `say = Say("encode.py")`, `say("done")`.

    Of several processes, started by torchrun, only the first one speaks; what may concern one alone is said `everywhere`.
    """

    prog: str
    write: Callable[[str], None] = ProgressBar().write  # with a bar on the screen: `dataclasses.replace(say, write=bar.write)`

    def __call__(self, message: str, everywhere: bool = False) -> None:
        """Say it; if nobody reads standard error any more, nothing happens."""
        rank = os.environ.get("RANK", "0")
        if rank == "0" or everywhere:
            with contextlib.suppress(OSError):
                self.write(f"{self.prog}: {message}" if rank == "0" else f"{self.prog}: process {rank}: {message}")


class Terminated(BaseException):
    """SIGTERM arrived."""


def exit_code_of(
    program: Callable[[], int | None], say: Say, output: str | None = None, memory_advice: str = "give fewer texts at a time"
) -> int:
    """Run a program: every failure is said in one line and has an exit code, every warning is said once.

    The program returns an exit code (None = 0) and flushes standard output at its end, so that a failure shows here. It may
    handle signals itself; otherwise SIGTERM raises `Terminated` in it. It writes to `output`; None = standard output.
    """
    signal.signal(signal.SIGTERM, _terminate)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"note: {message}")
        warnings.simplefilter("default", UserWarning)  # everything once
        try:
            return program() or 0
        except MinisbertError as error:
            say(str(error), everywhere=True)
            return error.exit_code
        except OSError as error:
            if error.filename is None and output is None:
                # What is still in the buffer goes nowhere, or Python would fail once more when it ends.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                if isinstance(error, BrokenPipeError):  # the reader, perhaps `head`, has seen enough
                    return 0
            say(f"{error.filename or output or 'standard output'}: {error.strerror or error}", everywhere=True)
            return FILE_SYSTEM_EXIT_CODE
        except (RuntimeError, MemoryError) as error:
            from minisbert.devices import is_out_of_memory  # imports torch, which --help does without

            if not is_out_of_memory(error):
                raise
            say(f"out of memory; {memory_advice}", everywhere=True)
            return InputError.exit_code
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED_EXIT_CODE
        except Terminated:
            say("terminated")
            return TERMINATED_EXIT_CODE


def _terminate(*_: object) -> None:
    raise Terminated


def prepare_streams() -> None:
    """Make standard output and error take any text; where the shell has closed one (`2>&-`), Python has None."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8", errors="replace")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8", errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # JSON must be UTF-8 whatever the locale says; a terminal shows ? for what it does not know.
        sys.stdout.reconfigure(encoding=None if sys.stdout.isatty() else "utf-8", errors="replace")


def leave(exit_code: int) -> NoReturn:
    """End the process at once. Everything is written by now, and Python's own way takes time and 70 MB to take torch apart."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, never there
            stream.flush()
    os._exit(exit_code)
