"""What the command lines have in common."""

import argparse
import os
import sys
from typing import NoReturn

from minisbert.errors import InputError


def open_closed_streams() -> None:
    """Send to the null device what is written to an output that the shell has closed (`2>&-`), for which Python has None."""
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8", errors="replace")
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8", errors="replace")


class OneLineParser(argparse.ArgumentParser):
    """Reports bad usage in one line, as every other failure."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(InputError.exit_code, f"{self.prog}: {message} (see --help)\n")
