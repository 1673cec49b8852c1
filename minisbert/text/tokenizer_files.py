"""The tokenizer of a model folder, checked against what the model can do."""

from typing import Any

from minisbert.errors import InputError, ModelError
from minisbert.storage.folder import ModelFolder
from minisbert.text.tokenizer import Tokenizer, load_backend, token_content

UNKNOWN_TOKENS = ("[UNK]", "<unk>")  # of WordPiece and SentencePiece, where tokenizer_config.json names none


def build_tokenizer(folder: ModelFolder, config: Any, max_seq_length: int | None) -> Tokenizer:
    """Build the tokenizer of a folder.

    Args:
        folder: with tokenizer.json, or vocab.txt.
        config: of the encoder, such as `BertConfig`.
        max_seq_length: texts are cut to this number of tokens; None = what the folder says, as far as the model can.

    Raises:
        ModelError: the tokenizer cannot be read, or it does not fit the model.
        InputError: `max_seq_length` is more than the model can do.
    """
    backend = load_backend(folder.tokenizer_files, segments_of_pairs=folder.config["model_type"] == "bert")
    special = backend.encode("").ids
    if not special:
        raise ModelError("tokenizer.json: adds no special tokens, so that an empty text would have no tokens at all")
    largest_id = max([*backend.get_vocab(with_added_tokens=True).values(), *special])
    if largest_id >= config.vocab_size:
        raise ModelError(
            f"tokenizer.json: has the token id {largest_id}, but the model has {config.vocab_size} embeddings"
        )
    if max_seq_length is None:
        max_seq_length = min(folder.max_seq_length or config.longest_text, config.longest_text)
        if max_seq_length <= len(special):
            raise ModelError(
                f"the model cuts texts to {max_seq_length} tokens, but tokenizer.json adds {len(special)} to each"
            )
    check_max_seq_length(max_seq_length, config)
    named = getattr(backend.model, "unk_token", None) or token_content(folder.tokenizer_config.get("unk_token"))
    unknown_token = named or next((token for token in UNKNOWN_TOKENS if backend.token_to_id(token) is not None), None)
    return Tokenizer(backend, config.pad_token_id, max_seq_length, unknown_token, folder.lowercase)


def check_max_seq_length(length: int, config: Any) -> None:
    """Refuse with InputError more tokens than the model was made for."""
    if length > config.longest_text:
        raise InputError(f"max_seq_length can be at most {config.longest_text} for this model, found {length}")
