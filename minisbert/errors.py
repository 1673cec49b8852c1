"""The errors minisbert raises on purpose, each with the exit code its scripts end with.

Every message is one line that says what is wrong, where, and what to do. An `OSError` from the file system is left
as it is, but for files of a model that cannot be read (`ModelError`); the scripts report it and end with
`FILE_SYSTEM_EXIT_CODE`.
"""

import contextlib
from collections.abc import Iterator

FILE_SYSTEM_EXIT_CODE = 5
INTERRUPTED_EXIT_CODE, TERMINATED_EXIT_CODE = 130, 143  # 128 + the number of the signal


class MinisbertError(Exception):
    """Base of all errors below.

    Args:
        message: one line.
        row: which of the texts it is about, counted from 0; the message then begins with it.
    """

    exit_code = 1

    def __init__(self, message: str, row: int | None = None) -> None:
        super().__init__(message)
        self.row = row

    def __str__(self) -> str:
        return super().__str__() if self.row is None else f"row {self.row}: {super().__str__()}"


class InputError(MinisbertError, ValueError):
    """Bad usage or bad input: an unknown option value, a missing column, a line that is not UTF-8."""

    exit_code = 2


class ModelError(MinisbertError):
    """A model folder that cannot be used: a file is missing, damaged, or asks for something not supported."""

    exit_code = 3


class HubError(MinisbertError):
    """The Hugging Face Hub did not deliver: no network, no such repository, no permission."""

    exit_code = 4


class ProcessError(MinisbertError):
    """Another process of a run of several has ended before its work was done."""

    exit_code = FILE_SYSTEM_EXIT_CODE  # the disk is full for one of them, most often; that one has said it


class NonFiniteError(MinisbertError, ArithmeticError):
    """A vector or a loss came out NaN or infinite; a weight that is so in its file is a `ModelError`."""

    exit_code = 6


def check_unicode(text: str, where: str) -> None:
    r"""Refuse half of a surrogate pair, which JSON ("\ud800") and command lines that are not UTF-8 can hold."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: character {error.start + 1} is no Unicode character; expected UTF-8") from None


def one_line(error: object) -> str:
    """The message of another package's error, short and on one line, for a message of ours."""
    return "".join(character if character.isprintable() else " " for character in str(error)[:200])


@contextlib.contextmanager
def damage_is_model_error(message: str) -> Iterator[None]:
    """Raise ModelError, with `message`, for what the `tokenizers` package raises inside.

    The package is written in Rust. Its panics become a PanicException, which is no `Exception` and has its name alone.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, ValueError) and type(error).__name__ not in ("Exception", "PanicException"):
            raise
        raise ModelError(f"{message}: {one_line(error)}") from None
