"""How the tensors of a checkpoint are called, in both directions: a table of modules, not patterns.

Each model file ends with such a table. `by_checkpoint_name` makes one dictionary of it, for loading (which stored tensor fills
a parameter) and for saving (under which name a parameter is stored). A tensor that no table knows, that is missing or has
another shape ends the loading: storage/weights.py names all of them in one error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

# What a wrapper put before every name when the weights were saved: DistributedDataParallel, torch.compile, a chain of modules.
WRAPPERS = ("module.", "_orig_mod.", "0.auto_model.", "auto_model.", "0.model.")
# What checkpoints of every architecture may hold besides, as in `TensorNames.unused`.
UNUSED = {
    "embeddings.position_ids": "0 to P - 1, stored by old versions of transformers",
    "classifier.*": "head of a model that classifies texts or tokens",
    "qa_outputs.*": "head of a model that answers questions",
}


@dataclass(frozen=True)
class TensorNames:
    """The names that one architecture has in checkpoints."""

    prefix: str  # what a masked-language model puts before every name, "bert." for example
    # Module in a checkpoint -> module of our encoder; {i} stands for the number of a layer. The tensors of a module, weight and
    # bias, have the same names in both. Rows for parts that a configuration leaves out are not used.
    modules: Mapping[str, str]
    unused: Mapping[str, str]  # known and left behind, with the reason; a final * stands for every name that starts so
    pooler_weights: Sequence[str] = ()  # read and saved again, but never computed with: see the end of bert.py

    def by_checkpoint_name(self, encoder: nn.Module, layers: int) -> dict[str, str]:
        """Checkpoint name -> parameter name, for every parameter of an encoder with so many layers."""
        checkpoint_modules = {
            module.format(i=i): checkpoint_module.format(i=i)
            for i in range(layers)
            for checkpoint_module, module in self.modules.items()
        }
        names = {}
        for parameter_name, _ in encoder.named_parameters():
            module, _, leaf = parameter_name.rpartition(".")
            names[f"{checkpoint_modules[module]}.{leaf}"] = parameter_name
        return names

    def leaves_behind(self, name: str) -> bool:
        """Whether a tensor of this checkpoint name is known and not needed."""
        return any(name.startswith(known[:-1]) if known.endswith("*") else name == known for known in self.unused)
