"""A command line, named by the first argument, that fails if it imports torch or numpy."""

import importlib
import sys

if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    try:
        sys.exit(importlib.import_module(f"minisbert.cli.{name}").main(arguments))
    finally:
        assert not {"torch", "numpy"} & set(sys.modules)
