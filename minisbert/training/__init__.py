"""Losses, optimizers and the loop; the data and the recipes of the published models."""
