"""The mathematics: token ids -> token vectors -> one vector per text. Start with layers.py."""
