"""From files and strings to batches of token ids."""
