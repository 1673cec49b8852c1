"""The errors minisbert raises on purpose, each with the exit code its scripts end with.

Every message is one line that says what is wrong, where, and what to do. An `OSError` from the file system is left
as it is; the scripts report it and end with `FILE_SYSTEM_EXIT_CODE`.
"""

FILE_SYSTEM_EXIT_CODE = 5


class MinisbertError(Exception):
    """Base of all errors below."""

    exit_code = 1


class InputError(MinisbertError, ValueError):
    """Bad usage or bad input: an unknown option value, a missing column, a line that is not UTF-8."""

    exit_code = 2


class ModelError(MinisbertError):
    """A model folder that cannot be used: a file is missing, damaged, or asks for something not supported."""

    exit_code = 3


class HubError(MinisbertError):
    """The Hugging Face Hub did not deliver: no network, no such repository, no permission."""

    exit_code = 4


class NonFiniteError(MinisbertError, ArithmeticError):
    """A weight, a vector or a loss is NaN or infinite."""

    exit_code = 6
