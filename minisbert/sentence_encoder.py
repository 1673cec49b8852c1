"""SentenceEncoder: a tokenizer, an encoder and a pooling, loaded from one folder; texts in, vectors out.

Paper: Reimers & Gurevych 2019, "Sentence-BERT". Checked against sentence-transformers 6.2.0, `SentenceTransformer`.
Axis letters: see layers.py.
"""

import dataclasses
import functools
import hashlib
import itertools
import os
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minisbert.devices import batch_budget, halved_when_full, is_out_of_memory, keep_working_after_fork, usable_device
from minisbert.errors import InputError, NonFiniteError
from minisbert.models.config import EncoderConfig
from minisbert.models.int8 import has_int8, keep_freed_memory, require_int8
from minisbert.models.pooling import Pooling
from minisbert.models.registry import architecture_of
from minisbert.progress import progress_bar
from minisbert.similarity import similarity, similarity_pairwise
from minisbert.storage import hub, hub_upload
from minisbert.storage.folder import CONFIG, ModelFolder, read_folder, write_folder
from minisbert.storage.settings import FieldsOfConfig, check_settings
from minisbert.storage.weights import load_checkpoint, save_checkpoint
from minisbert.text.batching import Rows, plan_batches
from minisbert.text.inputs import as_texts, check_reference_options
from minisbert.text.tokenizer import TokenizedTexts, Tokenizer
from minisbert.text.tokenizer_files import build_tokenizer, check_max_seq_length

# A prompt is a text that a model was trained to see before every text of a kind. These names models give to the prompt of a
# query, and to that of the texts it is searched in.
QUERY_PROMPTS, DOCUMENT_PROMPTS = ("query",), ("document", "passage", "corpus")
DTYPES = ("float64", "float32", "bfloat16", "float16", "int8")


@dataclass(frozen=True)
class EncodeReport:
    """What happened in one call of `SentenceEncoder.encode`."""

    rows: int
    tokens: int
    truncated: int  # texts cut to max_seq_length
    unknown: int  # tokens [UNK]
    not_nfc: int  # texts not in Unicode normal form C
    seconds: float


class SentenceEncoder(nn.Module):
    """Maps texts to vectors whose cosine says how similar the texts are in meaning.

    `forward` says what is computed, in two lines. `encode` calls it for one batch after the other, and `from_pretrained` and
    `save_pretrained` put the parts together and write them; most of the rest is named as in sentence-transformers.
    """

    def __new__(cls, *parts: Any, **named_parts: Any) -> "SentenceEncoder":
        """Refuse a path, which the classes of other libraries are made with."""
        if len(parts) + len(named_parts) == 1:
            raise TypeError("a model is loaded with SentenceEncoder.from_pretrained(folder, or name on the Hub)")
        return super().__new__(cls)

    def __init__(self, encoder: nn.Module, pooling: Pooling, tokenizer: Tokenizer, folder: ModelFolder) -> None:
        super().__init__()
        self.encoder = encoder
        self.pooling = pooling
        self.normalize = folder.normalize  # whether every vector gets length 1
        self.tokenizer = tokenizer
        self.folder = folder
        self.pooler_weights: dict[str, Tensor] = {}  # saved again, never computed with

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        revision: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str | None = None,
        max_seq_length: int | None = None,
        token: str | bool | None = None,
        local_files_only: bool = False,
        hub_timeout: float | None = None,
    ) -> "SentenceEncoder":
        """Load a model, ready to encode (in evaluation mode).

        Args:
            source: a folder, "owner/name" or "owner/name@revision" on the Hugging Face Hub.
            revision: branch, tag or commit on the Hub.
            device: None = "cuda" if there is one, else "cpu".
            dtype: of the parameters, or its name; None = float32. int8 is for encoding on a CPU: linear maps multiply bytes and
                all else is float32 (models/int8.py).
            max_seq_length: texts are cut to this number of tokens; None = what the folder says.
            token: for private and gated models; None = the one that the machine is logged in with.
            local_files_only: open no connection.
            hub_timeout: seconds for all that the Hub does; None = a minute a request, and more for large files.

        Raises:
            ModelError: the folder is not one of a supported model, or a file in it is damaged or holds NaN.
            HubError: the Hub does not deliver.
            InputError: `max_seq_length`, `dtype` or `device` is impossible, or `revision` is given for a folder or twice.
        """
        dtype_name = _name_of(dtype or torch.float32)
        if dtype_name not in DTYPES:
            raise InputError(f"dtype must be one of {', '.join(DTYPES)}, found {dtype}")
        int8 = dtype_name == "int8"
        device = usable_device(device)
        if int8:
            require_int8(device)
        path = hub.local_folder(source, revision, token, local_files_only, hub_timeout)
        folder = read_folder(path)
        architecture = architecture_of(folder.config)
        fields = FieldsOfConfig(folder.config)
        config = architecture.read_config(fields)
        check_settings(fields.not_read, path / folder.encoder_path / CONFIG, CONFIG)
        files, folder_length = folder.tokenizer_files, folder.max_seq_length
        default_class = folder.config.get("tokenizer_class") or architecture.tokenizer_class
        tokenizer = build_tokenizer(files, config, max_seq_length, folder_length, folder.lowercase, default_class)
        encoder = architecture.empty_encoder(config).to(torch.float32 if int8 else getattr(torch, dtype_name))
        model = cls(encoder, Pooling(folder.pooling_mode), tokenizer, folder)
        weights = path / folder.encoder_path
        try:
            model.pooler_weights = load_checkpoint(weights, encoder, architecture.tensor_names, device, int8)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(f"out of memory: the model does not fit on {device}; try another device") from None
        if int8:
            keep_freed_memory()
        return model.requires_grad_(not int8).eval()

    @property
    def max_seq_length(self) -> int:
        """Texts are cut to this number of tokens, special tokens included; it can be set: None = as many as the model can."""
        return self.tokenizer.max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, length: int | None) -> None:
        length = self.config.longest_text if length is None else length
        check_max_seq_length(length, self.config)
        self.tokenizer.max_seq_length = length

    @property
    def config(self) -> EncoderConfig:
        """What the encoder was built with: the one place to ask for sizes."""
        return cast(EncoderConfig, self.encoder.config)

    @property
    def embedding_dimension(self) -> int:
        """The length of a vector that `encode` returns: D; n D with n modes of pooling; or less if the folder says so."""
        return min(self._full_width, self.folder.truncate_dim or self._full_width)

    @property
    def _full_width(self) -> int:
        """The length of a vector that nothing has cut."""
        return self.config.width * len(self.pooling.modes)

    def get_embedding_dimension(self) -> int:
        """The same, by its name in sentence-transformers."""
        return self.embedding_dimension

    get_sentence_embedding_dimension = get_embedding_dimension  # the name until version 5

    @property
    def prompts(self) -> dict[str, str]:
        """What the model wants to be put before texts of a kind, such as "query", by name; see `encode`."""
        return self.folder.prompts

    @property
    def similarity_fn_name(self) -> str:
        """The function that `similarity` computes: "cosine", "dot", "euclidean" or "manhattan"."""
        return self.folder.similarity_fn_name

    @property
    def model_card_data(self) -> "SentenceEncoder":
        """What sentence-transformers' evaluators hand their numbers to; see `set_evaluation_metrics`."""
        return self

    def set_evaluation_metrics(self, *numbers: object) -> None:
        """Keeps nothing: model cards are written by training/model_card.py."""

    @property
    def base_model(self) -> str:
        """The fingerprint: sentence-transformers' miner keeps vectors in a cache folder, under this name of the model."""
        return self.fingerprint()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the parameters, or int8; `encode` returns float32 whatever it is."""
        return torch.int8 if has_int8(self.encoder) else next(self.parameters()).dtype

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None) -> Tensor:
        """Encode and pool a batch.

        Args:
            input_ids: (B, T) int64, padded on the right.
            attention_mask: (B, T) bool, True = real token; None = all are.
            token_type_ids: (B, T) int64; None = all 0.

        Returns:
            (B, D) float32, or float64 in a float64 model.
        """
        token_embeddings = self.encoder(input_ids, attention_mask, token_type_ids)  # (B, T, D)
        vectors = self.pooling(token_embeddings, attention_mask)  # (B, D)
        return F.normalize(vectors, dim=-1) if self.normalize else vectors

    @torch.inference_mode()
    def encode(
        self,
        sentences: str | Iterable[str],
        *,
        max_tokens_per_batch: int | None = None,
        batch_size: int | None = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        prompt: str | None = None,
        prompt_name: str | None = None,
        convert_to_tensor: bool = False,
        convert_to_numpy: bool = True,
        show_progress_bar: bool | None = None,
        on_report: Callable[[EncodeReport], None] | None = None,
        **reference_options: Any,
    ) -> Any:
        """Turn texts into vectors, in evaluation mode, which the model is left in.

        Args:
            sentences: N texts (a list, a column of a table, an iterator), or one.
            max_tokens_per_batch: rows x longest length of a batch; None = a value that suits the device.
            batch_size: the most rows of a batch; None = as many as those tokens allow.
            normalize_embeddings: scale every vector to length 1.
            truncate_dim: keep the first so many of D columns (for models trained with MatryoshkaLoss); None = as the
                folder says.
            prompt: put before every text.
            prompt_name: use the prompt of this name in the model's folder instead.
            convert_to_tensor: return a tensor on the model's device instead of an array.
            convert_to_numpy: False, without `convert_to_tensor`, returns a list of N tensors.
            show_progress_bar: None = if standard error is a terminal.
            on_report: called once at the end with an `EncodeReport`.
            reference_options: see text/inputs.py; output_value="token_embeddings" gives the vectors of the tokens, before
                pooling: for each text a tensor (number of tokens, D), special tokens included.

        Returns:
            float32 (N, D); (D,) for a single text; (0, D) for no texts. Row i belongs to text i. An array, or a
            tensor with `convert_to_tensor` (an inference tensor, as in the reference: clone it to train on it).

        Raises:
            TypeError: `sentences` or one of its rows is not text, or there is no such option.
            InputError: an option has an impossible value, a text is not valid Unicode, or the memory does not suffice
                for a text alone.
            NonFiniteError: a vector came out NaN or infinite; the message names the row.
        """
        start = time.perf_counter()
        self.eval()
        keep_working_after_fork()
        check_reference_options(reference_options, self.device)
        texts = as_texts(sentences)
        width = self._width(truncate_dim)
        tokenized = self.tokenizer(texts, self.prompt_text(prompt, prompt_name))
        if tokenized.not_nfc:
            warnings.warn(
                f"{tokenized.not_nfc} of {len(texts)} texts are not in Unicode normal form C (decomposed Hangul, as "
                "from macOS), which most vocabularies do not know: normalise them first (encode.py --nfc)",
                stacklevel=3,
            )
        if reference_options.get("output_value") == "token_embeddings":
            if normalize_embeddings or truncate_dim:
                raise InputError("token_embeddings come as they are, without normalize_embeddings and truncate_dim")
            tokens = self._token_embeddings(tokenized)
            return tokens[0] if isinstance(sentences, str) else tokens
        embeddings = np.empty((len(texts), width), dtype=np.float32)
        with progress_bar(len(texts), show_progress_bar) as bar:
            batches = self._plan(tokenized, max_tokens_per_batch, batch_size)
            compute = functools.partial(self._compute, self, tokenized)  # rows -> vectors, by `forward`
            for rows, vectors in halved_when_full(compute, batches):  # halved: what does not fit into the memory
                vectors = vectors[:, :width]  # (B, width)
                if normalize_embeddings:
                    vectors = F.normalize(vectors, dim=-1)
                embeddings[rows] = vectors.cpu().numpy()
                bar.advance(len(rows))
        _check_finite(embeddings)
        if on_report is not None:
            counts = (len(tokenized.ids), tokenized.truncated, tokenized.unknown, tokenized.not_nfc)
            on_report(EncodeReport(len(texts), *counts, time.perf_counter() - start))
        result = embeddings[0] if isinstance(sentences, str) else embeddings
        if convert_to_tensor or not convert_to_numpy:
            result = torch.from_numpy(result).to(self.device)
        return result if convert_to_tensor or convert_to_numpy or isinstance(sentences, str) else list(result)

    def encode_query(self, sentences: str | Iterable[str], **options: Any) -> Any:
        """`encode` with the prompt that the model has for what is searched with, "query", if it has one."""
        return self.encode(sentences, **self.with_prompt(QUERY_PROMPTS, options))

    def encode_document(self, sentences: str | Iterable[str], **options: Any) -> Any:
        """`encode` with the prompt that the model has for what is searched in: "document", "passage" or "corpus"."""
        return self.encode(sentences, **self.with_prompt(DOCUMENT_PROMPTS, options))

    def with_prompt(self, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        """The options, with the first of these prompts that the model has, unless they ask for another one."""
        known = next((name for name in names if name in self.prompts), None)
        asked = options.get("prompt") is not None or options.get("prompt_name") is not None
        return options if asked else {**options, "prompt_name": known}

    def _width(self, truncate_dim: int | None) -> int:
        if truncate_dim is not None and not 1 <= truncate_dim <= self._full_width:
            raise InputError(f"truncate_dim must be from 1 to {self._full_width}, found {truncate_dim}")
        return truncate_dim or self.embedding_dimension

    def prompt_text(self, prompt: str | None, prompt_name: str | None) -> str:
        """The text to put before every text: as given, by name, or the model's default."""
        if prompt is not None:
            return prompt
        name = prompt_name if prompt_name is not None else self.folder.default_prompt_name
        if name is None:
            return ""
        if name not in self.prompts:
            raise InputError(f"the model has no prompt named {name!r}; it has: {', '.join(self.prompts) or 'none'}")
        return self.prompts[name]

    def _plan(self, texts: TokenizedTexts, max_tokens: int | None = None, max_rows: int | None = None) -> list[Rows]:
        """Divide the texts into batches that suit the device and the options."""
        for name, value in (("max_tokens_per_batch", max_tokens), ("batch_size", max_rows)):
            if value is not None and value < 1:
                raise InputError(f"{name} must be at least 1, found {value}")
        default_tokens, batch_cost = batch_budget(self.device, self.dtype)  # 2048 and 128 on a CPU in float32
        return plan_batches(texts.lengths, max_tokens or default_tokens, batch_cost, max_rows)

    def _token_embeddings(self, texts: TokenizedTexts) -> list[Tensor]:
        """For each text the encoder's vectors of its tokens, special ones included: (number of tokens, D)."""
        result = [torch.empty(0)] * len(texts.ends)
        for rows, vectors in halved_when_full(functools.partial(self._compute, self.encoder, texts), self._plan(texts)):
            for row, vector in zip(rows, vectors.float().cpu(), strict=True):  # (T, D)
                result[row] = vector[: texts.lengths[row]]
        return result

    def _compute(self, module: nn.Module, texts: TokenizedTexts, rows: Rows) -> Tensor:
        """What a module, the whole model or its encoder, makes of some of the texts: (B, D) or (B, T, D)."""
        input_ids, mask = self.tokenizer.pad(texts, rows)
        vectors: Tensor = module(input_ids.to(self.device), None if mask is None else mask.to(self.device))
        return vectors

    def similarity(self, a: npt.ArrayLike | Tensor, b: npt.ArrayLike | Tensor) -> Tensor:
        """Compare every vector of `a`, (N1, D) or (D,), with every vector of `b`, (N2, D) or (D,): (N1, N2) on the CPU.

        By the function that the model's folder names, see `similarity.similarity`; larger is more similar.
        """
        return similarity(a, b, self.folder.similarity_fn_name)

    def similarity_pairwise(self, a: npt.ArrayLike | Tensor, b: npt.ArrayLike | Tensor) -> Tensor:
        """Compare row i of `a` with row i of `b`, both (N, D), by the same function: (N,) on the CPU."""
        return similarity_pairwise(a, b, self.folder.similarity_fn_name)

    def fingerprint(self) -> str:
        """SHA-256 of names and values of all parameters: equal for equal weights and dtype, whatever file they came from."""
        digest = hashlib.sha256()
        for name, tensor in itertools.chain(self.named_parameters(), self.named_buffers()):  # those of 8-bit maps are buffers
            digest.update(name.encode())
            digest.update(tensor.detach().to_dense().cpu().contiguous().view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the model as a folder that sentence-transformers, transformers and this class open.

        Nothing half-written appears under `folder`; it may be the one the model was loaded from.

        Raises:
            InputError: the model was loaded as int8.
            OSError: the folder cannot be written to.
        """
        if self.dtype == torch.int8:
            raise InputError("an int8 model cannot be saved: load it with another dtype and save that")
        architecture = architecture_of(self.folder.config)
        not_ours = ("auto_map", "torch_dtype", "dtype")
        config = {key: value for key, value in self.folder.config.items() if key not in not_ours}
        config |= {"architectures": [architecture.class_name], "torch_dtype": _name_of(self.dtype)}
        files = dict(self.folder.tokenizer_files)
        files.setdefault("tokenizer.json", self.tokenizer.backend.to_str(pretty=True).encode())
        contents = dataclasses.replace(
            self.folder,
            config=config,
            tokenizer_files=files,
            max_seq_length=self.max_seq_length,
            pooling_mode=self.pooling.mode,  # of the modules that compute, whatever the folder said that was loaded
            normalize=self.normalize,
        )
        names, pooler = architecture.tensor_names, self.pooler_weights
        write_weights = functools.partial(save_checkpoint, encoder=self.encoder, tensor_names=names, pooler_weights=pooler)
        write_folder(Path(folder), contents, self.config.width, write_weights)

    def push_to_hub(
        self, repo_id: str, private: bool | None = None, revision: str | None = None, token: str | bool | None = None
    ) -> str:
        """Upload what `save_pretrained` writes to `repo_id`, "owner/name", on the Hugging Face Hub, and return its address.

        A model card that is there stays as it is. See `hub_upload.upload`; InputError too if the model was loaded as int8.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub_upload.upload(Path(folder), repo_id, private, revision, token)


def _name_of(dtype: torch.dtype | str) -> str:
    return str(dtype).removeprefix("torch.")


def _check_finite(embeddings: npt.NDArray[np.float32]) -> None:
    if not np.isfinite(embeddings.sum(dtype=np.float64)):  # cheaper than to look at every value when all is well
        bad = np.flatnonzero(~np.isfinite(embeddings).all(axis=1))
        raise NonFiniteError("the vector is NaN or infinite; with float16, use bfloat16 or float32", row=int(bad[0]))
