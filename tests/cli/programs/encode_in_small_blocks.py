"""encode.py with blocks of eight rows, so that a few rows are many blocks."""

import signal
import sys

from minisbert.cli import encode, encode_run

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a program in the background starts ignores SIGINT
    encode_run.ROWS_AT_ONCE = 8
    sys.exit(encode.main())
