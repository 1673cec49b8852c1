"""Between a Hub name or a folder on disk and tensors in memory."""
