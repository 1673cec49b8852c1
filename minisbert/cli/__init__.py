"""The command lines: what they accept, print and end with."""
