"""What live parity tests and golden files have in common: the cases, and the comparison of an encoder with a recording.

A recording holds everything a case is about, as tensors: "weights/*" under checkpoint names, the batch, and what the
reference computed from it, in evaluation and in training mode (with dropout 0): token embeddings, pooled vectors, gradients.
"""

from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from minisbert.models.pooling import Pooling
from minisbert.models.registry import ARCHITECTURES
from minisbert.storage.weights import load_checkpoint
from tests.tiny import CONFIGS, NO_DROPOUT

TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-4}


def _deberta(**fields: Any) -> dict[str, Any]:
    return {**CONFIGS["deberta-v2"], **NO_DROPOUT, **fields}


WIDE_HEADS = {"hidden_size": 128}  # K = 64 as in the published models; 2K and 3K are no squares
CASES: dict[str, dict[str, Any]] = {
    **{model_type: {**fields, **NO_DROPOUT} for model_type, fields in CONFIGS.items() if model_type != "deberta-v2"},
    "bert-relu": {**CONFIGS["bert"], **NO_DROPOUT, "hidden_act": "relu"},
    "bert-gelu-new": {**CONFIGS["bert"], **NO_DROPOUT, "hidden_act": "gelu_new"},
    "xlm-roberta": {
        **CONFIGS["roberta"],
        **NO_DROPOUT,
        "model_type": "xlm-roberta",
        "pad_token_id": 3,
        "max_position_embeddings": 44,
    },
    "deberta": _deberta(),
    "deberta-text-terms": _deberta(pos_att_type="c2p|p2c"),
    "deberta-c2p": _deberta(pos_att_type=["c2p"]),
    "deberta-p2c": _deberta(pos_att_type=["p2c"]),
    "deberta-own-projections": _deberta(share_att_key=False),
    "deberta-own-c2p": _deberta(share_att_key=False, pos_att_type=["c2p"]),
    "deberta-own-p2c": _deberta(share_att_key=False, pos_att_type=["p2c"]),
    "deberta-no-norm": _deberta(norm_rel_ebd="none"),
    "deberta-no-buckets": _deberta(position_buckets=-1),
    "deberta-no-buckets-short": _deberta(position_buckets=-1, max_relative_positions=6),
    "deberta-short-buckets": _deberta(position_buckets=8, max_relative_positions=12),
    "deberta-biased-input": _deberta(position_biased_input=True, type_vocab_size=2),
    "deberta-content-only": _deberta(relative_attention=False, pos_att_type=[], position_biased_input=True),
    "deberta-idle-terms": _deberta(relative_attention=False, position_biased_input=True),  # they count in the scale
    "deberta-odd-buckets": _deberta(position_buckets=9),
    "deberta-wide-heads": _deberta(**WIDE_HEADS),
    "deberta-wide-heads-c2p": _deberta(**WIDE_HEADS, pos_att_type=["c2p"]),
    "deberta-wide-heads-p2c": _deberta(**WIDE_HEADS, pos_att_type=["p2c"], share_att_key=False),
}
GOLDEN_CASES = (
    "bert",
    "roberta",
    "deberta",
    "deberta-own-projections",
    "deberta-no-buckets-short",
    "deberta-biased-input",
)


def ragged_batch(config: Any, seed: int = 0) -> dict[str, Tensor]:
    """Three texts of 37, 9 and 4 tokens, padded on the right; 37 is well beyond the near buckets of DeBERTa.

    `config` is that of the encoder they are for.
    """
    lengths = [37, 9, 4]
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(5, config.vocab_size, (len(lengths), max(lengths)), generator=generator)
    attention_mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    input_ids[~attention_mask] = config.pad_token_id
    input_ids[1, 5] = config.pad_token_id  # a text may hold "[PAD]", to RoBERTa padding
    batch = {"input_ids": input_ids, "attention_mask": attention_mask}
    if config.segments > 1:
        batch["token_type_ids"] = (torch.arange(max(lengths)) >= 3).long().expand_as(input_ids).contiguous()
    # What the loss multiplies the token embeddings with; zero under padding, which means nothing.
    loss_weights = torch.randn(*input_ids.shape, config.width, generator=generator, dtype=torch.float64)
    batch["loss_weights"] = loss_weights * attention_mask[:, :, None]
    return batch


def compare(
    fields: dict[str, Any],
    recording: dict[str, Tensor],
    folder: Any,
    device: str = "cpu",
    dtype: torch.dtype = torch.float64,
) -> None:
    """Load the recorded weights into our encoder and compare everything it computes with the recording."""
    architecture = ARCHITECTURES[fields["model_type"]]
    config = architecture.read_config(fields)
    encoder = architecture.encoder(config).to(device, dtype)
    weights = {name.removeprefix("weights/"): tensor for name, tensor in recording.items() if name.startswith("weights/")}
    save_file(weights, folder / "model.safetensors")
    load_checkpoint(folder, encoder, architecture.tensor_names)
    names = architecture.tensor_names.by_checkpoint_name(encoder, config.layers)
    parameters = dict(encoder.named_parameters())
    batch = {name: recording[name].to(device) for name in ("input_ids", "attention_mask")}
    token_type_ids = recording["token_type_ids"].to(device) if "token_type_ids" in recording else None
    real = batch["attention_mask"]

    def check(name: str, found: Tensor, expected: Tensor) -> None:
        error = (found.detach().double().cpu() - expected).abs().max().item()
        assert error <= TOLERANCE[dtype], f"{name} differs by {error:.1e}"

    for mode in ("eval", "train"):
        encoder.train(mode == "train")
        encoder.zero_grad()
        token_embeddings = encoder(**batch, token_type_ids=token_type_ids)
        check(f"{mode} token embeddings", token_embeddings[real], recording["token_embeddings"][real.cpu()])
        for name in recording:
            if name.startswith("pooled/"):
                check(name, Pooling(name.removeprefix("pooled/"))(token_embeddings, real), recording[name])
        (token_embeddings * recording["loss_weights"].to(token_embeddings)).sum().backward()
        compared = 0
        for theirs, ours in names.items():
            gradient = parameters[ours].grad
            expected = recording.get(f"gradients/{theirs}")
            assert (gradient is None) == (expected is None), f"only one side has a gradient for {theirs}"
            if gradient is not None and expected is not None:
                scale = max(1.0, expected.abs().max().item())  # gradients of sums over many tokens are larger than 1
                check(f"{mode} gradient of {theirs}", gradient / scale, expected / scale)
                compared += 1
        assert compared > 20
        with torch.inference_mode():  # as `encode` computes; activations may then overwrite their argument
            without_gradients = encoder(**batch, token_type_ids=token_type_ids)
        check(f"{mode} without gradients", without_gradients[real], recording["token_embeddings"][real.cpu()])


def record_dropouts(monkeypatch: Any) -> list[tuple[tuple[int, ...], float]]:
    """Note the shape and probability of every dropout that is applied, also of that inside fused attention."""
    calls = []
    dropout, attention = nn.functional.dropout, nn.functional.scaled_dot_product_attention

    def noted_dropout(x, p=0.5, training=True, inplace=False):
        if training and p > 0:
            calls.append((tuple(x.shape), p))
        return dropout(x, p, training, inplace)

    def noted_attention(query, key, value, attn_mask=None, dropout_p=0.0, *rest, **options):
        if dropout_p > 0:
            calls.append(((*query.shape[:3], key.shape[2]), dropout_p))
        return attention(query, key, value, attn_mask, dropout_p, *rest, **options)

    monkeypatch.setattr(nn.functional, "dropout", noted_dropout)
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", noted_attention)
    return calls
