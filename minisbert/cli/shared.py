"""What the command lines have in common: bad usage in one line, and every failure as one line and an exit code."""

import argparse
import contextlib
import io
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn, TextIO

from minisbert.errors import (
    FILE_SYSTEM_EXIT_CODE,
    INTERRUPTED_EXIT_CODE,
    TERMINATED_EXIT_CODE,
    InputError,
    MinisbertError,
)


def open_closed_streams() -> None:
    """Send to the null device what is written to an output that the shell has closed (`2>&-`), for which Python has None."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8", errors="replace")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8", errors="replace")


def write_utf8(stream: TextIO) -> None:
    """Write UTF-8 whatever the locale says, as JSON must be; a terminal shows ? for what it does not know."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")


class OneLineParser(argparse.ArgumentParser):
    """Reports bad usage in one line, as every other failure."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(InputError.exit_code, f"{self.prog}: {message} (see --help)\n")


class Terminated(BaseException):
    """SIGTERM arrived."""


def exit_code_of(program: Callable[[], None], say: Callable[[str], None], output: str | None = None) -> int:
    """Run a program; what goes wrong is said in one line, warnings are said once.

    Args:
        program: flushes standard output at its end, so that a failure shows here.
        say: prints a line on standard error.
        output: the file that the program writes; None = standard output.

    Returns:
        The exit code.
    """
    signal.signal(signal.SIGTERM, _terminate)
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(f"note: {message}")
        warnings.simplefilter("default", UserWarning)  # everything once
        try:
            program()
            return 0
        except MinisbertError as error:
            say(str(error))
            return error.exit_code
        except BrokenPipeError:  # the reader of standard output, perhaps `head`, has seen enough
            _drop_standard_output()
            return 0
        except OSError as error:
            if error.filename is None and output is None:
                _drop_standard_output()
            say(f"{error.filename or output or 'standard output'}: {error.strerror or error}")
            return FILE_SYSTEM_EXIT_CODE
        except MemoryError:
            say("out of memory; give fewer texts at a time")
            return InputError.exit_code
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED_EXIT_CODE
        except Terminated:
            say("terminated")
            return TERMINATED_EXIT_CODE


def _drop_standard_output() -> None:
    """Have what is still in the buffer of standard output go nowhere when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminate(*_: object) -> None:
    raise Terminated


def leave(exit_code: int) -> NoReturn:
    """End the program at once: everything is written, and taking torch apart would need time and 70 MB more."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # full, closed, never there
            stream.flush()
    os._exit(exit_code)
