"""The reference side: tiny models of transformers with random weights, and what they compute."""

from typing import Any

import torch
import transformers
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from minisbert.models.pooling import POOLING_MODES
from minisbert.models.registry import ARCHITECTURES
from tests.comparison import ragged_batch
from tests.tiny import STANDARD_DEVIATION


def reference_model(fields: dict[str, Any], seed: int = 0, **options: Any) -> nn.Module:
    """A float64 model of transformers with the given config.json and random weights."""
    model_class = getattr(transformers, ARCHITECTURES[fields["model_type"]].class_name)
    known = {name: value for name, value in fields.items() if name != "model_type"}
    model = model_class._from_config(model_class.config_class(**known), **options).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(std=STANDARD_DEVIATION, generator=generator)
    return model


def record(fields: dict[str, Any]) -> dict[str, Tensor]:
    """What the reference computes for a case, in the form that `tests.comparison.compare` reads."""
    model = reference_model(fields)
    config = ARCHITECTURES[fields["model_type"]].read_config(fields)
    batch = ragged_batch(config)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"].long()}
    if "token_type_ids" in batch:
        inputs["token_type_ids"] = batch["token_type_ids"]
    recording = dict(batch)
    for mode in (False, True):  # both modes must give the same numbers, dropout being 0
        model.train(mode)
        model.zero_grad()
        token_embeddings = model(**inputs).last_hidden_state
        (token_embeddings * batch["loss_weights"]).sum().backward()
        found = {"token_embeddings": token_embeddings.detach()}
        found |= {
            f"gradients/{name}": parameter.grad.clone()
            for name, parameter in model.named_parameters()
            if parameter.grad is not None
        }
        for name, tensor in found.items():
            assert name not in recording or torch.allclose(recording[name], tensor, atol=1e-12, rtol=0)
            recording[name] = tensor
    for pooling_mode in (*POOLING_MODES, "lasttoken+mean+cls"):
        pooling = Pooling(config.width, pooling_mode.split("+"))
        features = {"token_embeddings": recording["token_embeddings"], "attention_mask": batch["attention_mask"]}
        recording[f"pooled/{pooling_mode}"] = pooling(features)["sentence_embedding"]
    recording |= {f"weights/{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    return recording
