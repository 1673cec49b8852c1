"""What the command lines have in common."""

import argparse
from typing import NoReturn

from minisbert.errors import InputError


class OneLineParser(argparse.ArgumentParser):
    """Reports bad usage in one line, as every other failure."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        self.exit(InputError.exit_code, f"{self.prog}: {message} (see --help)\n")
