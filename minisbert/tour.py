"""What happens to one sentence: the real computation of a model, step by step, with its real numbers.

    python -m minisbert.tour "한 남자가 음식을 먹는다." "한 남자가 빵을 먹는다."

The model runs as always, and `Recording` writes down what goes into its modules and comes out. A step shows a part of that, in
the order of the book, and names the function that computed it. Steps are data: cli/tour_run.py prints them on a terminal, and
cli/tour_page.py makes a page of them. Axis letters: see layers.py; here B = 1.
"""

import copy
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from minisbert.errors import InputError, check_unicode
from minisbert.models import fast, layers
from minisbert.models.deberta_v2 import DisentangledAttention, plain_position_scores, table_rows
from minisbert.models.layers import split_heads
from minisbert.sentence_encoder import SentenceEncoder
from minisbert.similarity import cosine_by_tokens, similarity_pairwise
from minisbert.text.long_text import encode_starts
from minisbert.text.tokenizer import Tokenizer
from minisbert.training.examples import Batch
from minisbert.training.losses import CosineSimilarityLoss
from minisbert.training.plan import Plan
from minisbert.training.step import embed_columns, train_step

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Table:
    """Numbers with a name for each row and column."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    numbers: Numbers  # (rows, columns)
    form: str = ".2f"
    shaded: bool = False  # colour cells by their numbers
    sums: bool = False  # show the sums of rows and columns too

    def with_sums(self) -> Numbers:
        """The numbers and, if they are shown, the sums of columns below them and of rows beside them."""
        if not self.sums:
            return self.numbers
        numbers = np.vstack([self.numbers, self.numbers.sum(0)])
        return np.hstack([numbers, numbers.sum(1, keepdims=True)])


@dataclass(frozen=True)
class Bars:
    """All numbers of one vector."""

    title: str
    numbers: Numbers  # (D,)


@dataclass(frozen=True)
class Step:
    """One step of the way from a text to its vector."""

    title: str
    where: str  # the function that computes it: "models/layers.py attention()"
    text: str
    parts: tuple[Table | Bars, ...]


class Recording(TorchFunctionMode):
    """Runs an encoder and writes down what goes into every module and comes out, and into every attention and comes out."""

    def __init__(self, encoder: nn.Module, input_ids: Tensor) -> None:
        super().__init__()
        self.inputs: dict[nn.Module, tuple[Any, ...]] = {}
        self.outputs: dict[nn.Module, Tensor] = {}
        # Of each layer: query, key, value, bias or None, what query · key is multiplied with, and what came out.
        self.attentions: list[tuple[Any, ...]] = []
        hooks = [module.register_forward_hook(self._note) for module in encoder.modules()]
        try:
            with self, torch.enable_grad():  # with gradients a layer takes its plain form, module by module
                self.tokens: Tensor = encoder(input_ids)  # (1, T, D)
        finally:
            for hook in hooks:
                hook.remove()

    def _note(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        self.inputs[module], self.outputs[module] = inputs, output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in place of each of its functions."""
        result = func(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention:  # see fast.attention
            query, key, value, bias, _ = args
            scale = (kwargs or {}).get("scale") or query.shape[-1] ** -0.5
            self.attentions.append((query, key, value, bias, scale, result))
        return result


class Sentence:
    """A text on its way through a model, which is in evaluation mode: tokens, what was recorded, and the vector.

    `prompt` and `prompt_name` are as in `SentenceEncoder.encode`.
    """

    def __init__(self, model: SentenceEncoder, text: str, prompt: str | None = None, prompt_name: str | None = None) -> None:
        check_unicode(text, "text")
        self.encoder: Any = model.encoder
        self.text = model.prompt_text(prompt, prompt_name) + text
        self.tokenized = model.tokenizer([self.text])
        self.names = token_names(model.tokenizer, self.text, self.tokenized.ids)
        input_ids, _ = model.tokenizer.pad(self.tokenized, [0])  # (1, T)
        self.recording = Recording(self.encoder, input_ids.to(model.device))
        self.parts = token_parts(model.pooling, self.recording.tokens)  # (T, D)
        vector = model.pooling(self.recording.tokens)[0].detach()  # (D,)
        self.vector = F.normalize(vector, dim=-1) if model.normalize else vector


def token_names(tokenizer: Tokenizer, text: str, ids: Sequence[int] | npt.NDArray[np.integer]) -> tuple[str, ...]:
    """The tokens of a text as words; an unknown one is followed by what the text has there: "[UNK] 빵"."""
    spans = encode_starts(tokenizer.backend, [text], tokenizer.max_seq_length)[0].offsets
    names = []
    for token, (begin, end) in zip(ids, spans, strict=True):
        lost = f" {text[begin:end]}" if token == tokenizer.unknown_token_id else ""
        names.append(f"{tokenizer.backend.id_to_token(int(token))}{lost}")
    return tuple(names)


def token_parts(pooling: nn.Module, tokens: Tensor) -> Tensor:
    """What each token gives to the vector of its text: the pooled vector is the sum of these parts.

    Every pooling weighs the tokens, column by column: "mean" with 1/T each, "cls" the first with 1, "max" the largest of a
    column with 1. A weight is the derivative of the vector by the token, so torch can find it. Of n modes, each has D columns.

    Args:
        pooling: from models/pooling.py.
        tokens: (1, T, D), the token embeddings of one text.

    Returns:
        (T, n D) float32, or float64 for such input, whose sum over tokens is pooling(tokens).
    """
    tokens = tokens.detach()
    with torch.enable_grad():
        tokens = tokens.to(pooling(tokens).dtype).requires_grad_()
        by_mode = pooling(tokens).split(tokens.shape[-1], dim=1)  # n times (1, D)
        weights = [torch.autograd.grad(pooled.sum(), tokens, retain_graph=True)[0] for pooled in by_mode]  # n times (1, T, D)
    return torch.cat([(weight * tokens).detach()[0] for weight in weights], dim=1)


def why_alike(first: Sentence, second: Sentence, width: int | None = None) -> Table:
    """Which tokens make the cosine of two texts: a grid that sums up to it. `width` = only the first so many columns of D."""
    shares = cosine_by_tokens(first.parts[:, :width], second.parts[:, :width])  # (S, T)
    title = f"cosine {float(shares.sum()):.4f}, which is the sum of all cells"
    return Table(title, first.names, second.names, _numbers(shares), ".3f", shaded=True, sums=True)


def tour(model: SentenceEncoder, texts: Sequence[str], layer: int = 1, head: int = 1) -> list[Step]:
    """Follow a text through a model, and with a second one ask why they are alike and train a copy of the model on them.

    The inside of one layer is shown, and one head of its attention, both counted from 1. The model is left in evaluation mode
    and not changed. The steps come in the order of the book.

    Raises:
        InputError: there are not one or two texts, one is not valid Unicode, or the model has no such layer or head.
        NonFiniteError: the loss of the training step, or its gradient, is NaN or infinite.
    """
    if not 1 <= len(texts) <= 2:
        raise InputError(f"a tour takes one text or two, found {len(texts)}")
    _check_number("layer", layer, model.config.layers)
    model.eval()
    sentences = [Sentence(model, unicodedata.normalize("NFC", text)) for text in texts]
    first, block = sentences[0], sentences[0].encoder.layers[layer - 1]
    _check_number("head", head, first.recording.attentions[layer - 1][0].shape[1])
    shown = Head(first, layer, head)
    steps = [
        *_text_to_tokens(model, texts, sentences),
        _embeddings(first),
        _scores(first, shown),
        *_mixture(first, shown),
        *_residuals(first, block, layer),
        _layers(first),
        *_pooling(model, sentences),
    ]
    if len(sentences) == 2:
        steps += [_cosine(model, *sentences), _training(model, sentences)]
    return steps


def _check_number(name: str, number: int, most: int) -> None:
    """InputError if there is no such layer or head."""
    if not 1 <= number <= most:
        raise InputError(f"{name} must be from 1 to {most} in this model, found {number}")


def _text_to_tokens(model: SentenceEncoder, texts: Sequence[str], sentences: Sequence[Sentence]) -> list[Step]:
    """What was given, and the tokens that it became."""
    counts = [
        [len(text), len(each.text), len(each.names), each.tokenized.unknown, each.tokenized.truncated]
        for text, each in zip(texts, sentences, strict=True)
    ]
    names = ("characters as given", "in NFC, with the prompt", "tokens", "of them unknown", "1 = cut at the end")
    columns = tuple(f"text {number}" for number in range(1, len(sentences) + 1))
    return [
        Step(
            "The text",
            _where(Tokenizer.__call__),
            "Hangul from macOS comes as single letters that only look like syllables. Normal form C (NFC) puts them together, "
            f"because the vocabulary has syllables. A text longer than {model.max_seq_length} tokens is cut.",
            (Table("", names, columns, np.array(counts, dtype=np.float64).T, ".0f"),),
        ),
        Step(
            "Word pieces",
            _where(Tokenizer.__call__),
            f"The model knows {model.config.vocab_size} tokens by number. A word that is not among them is made of pieces. If "
            "there are no such pieces, it becomes the unknown token, and what it meant is lost.",
            tuple(
                Table(f"text {number}", each.names, ("id",), each.tokenized.ids[:, None].astype(np.float64), ".0f")
                for number, each in enumerate(sentences, start=1)
            ),
        ),
    ]


def _embeddings(sentence: Sentence) -> Step:
    """What each table adds to a token."""
    embeddings, recording, D = sentence.encoder.embeddings, sentence.recording, sentence.encoder.config.width
    added = {
        # A table that was not asked has given its first row to all tokens: they are of segment 0.
        name: recording.outputs.get(module, module.weight[:1].expand(len(sentence.names), -1))
        for name, module in embeddings.named_children()
        if isinstance(module, nn.Embedding)
    }
    totals = {"sum": recording.inputs[embeddings.norm][0], "after norm": recording.outputs[embeddings]}
    return Step(
        "Embeddings",
        _where(type(embeddings).forward),
        f"Each token becomes a vector of {D} numbers: the sum of one row from each table. "
        + ("" if "position" in added else "No position is added here: this model sees distances in its attention. ")
        + "LayerNorm brings the numbers of a sum to variance 1, which is a length of "
        f"sqrt({D}) = {D**0.5:.1f}, and stretches each column by a learnt weight.",
        (_lengths(sentence, "length of what is added, and of the sum", **added, **totals),),
    )


class Head:
    """What one head of one layer, both counted from 1, computed with."""

    def __init__(self, sentence: Sentence, layer: int, head: int) -> None:
        block, recording = sentence.encoder.layers[layer - 1], sentence.recording
        self.place = f"layer {layer}, head {head}"
        self.attention = block.attention  # the module that it is in
        self.number = slice(head - 1, head)  # of the heads
        query, key, value, bias, self.scale, mixed = recording.attentions[layer - 1]
        self.query, self.key, self.value, self.mixed = (each[:, self.number] for each in (query, key, value, mixed))
        # (1, 1, T, K) each. The bias, (1, 1, T, T), is added to the scaled scores of the contents.
        self.bias: Tensor | None = None if bias is None else bias[:, self.number]
        # (R, D), of relative positions, if it has them.
        self.table: Tensor | None = recording.inputs[block][2] if isinstance(self.attention, DisentangledAttention) else None

    def weights(self) -> Tensor:
        """The weights of the mixture, (1, 1, T, T): with the unit matrix for values, they are what comes out."""
        T = self.query.shape[-2]
        unit = torch.eye(T, dtype=self.query.dtype, device=self.query.device).expand(1, 1, T, T)
        return fast.attention(self.query, self.key, unit, self.bias, 0.0, self.scale)

    def position_terms(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The scaled terms c2p and p2c, (1, 1, T, T) each, by their plain form; rows (T, T) as there."""
        attention = self.attention
        projections = (attention.relative_key or attention.key, attention.relative_query or attention.query)
        relative_key, relative_query = (
            split_heads(projection(self.table), attention.heads)[self.number] if term in attention.terms else None
            for term, projection in zip(("c2p", "p2c"), projections, strict=True)
        )  # (1, R, K) each
        return (
            plain_position_scores(self.query, self.key, relative_key, None, rows) * self.scale,
            plain_position_scores(self.query, self.key, None, relative_query, rows) * self.scale,
        )


def _scores(sentence: Sentence, head: Head) -> Step:
    """How queries and keys become scores: of one part, or of three in DeBERTa."""

    def grid(title: str, numbers: Tensor, form: str = ".2f") -> Table:
        T = len(sentence.names)
        return Table(title, sentence.names, sentence.names, _numbers(numbers).reshape(T, T), form, shaded=True)

    K = head.query.shape[-1]
    content = head.query @ head.key.transpose(-1, -2) * head.scale  # (1, 1, T, T), see `layers.attention`
    scores = content if head.bias is None else content + head.bias
    if head.table is None:
        where, terms, grids = _where(layers.attention), "query · key", [grid("scores", scores)]
    else:
        where, terms = _where(DisentangledAttention.position_scores), "(query · key + terms of the distance)"
        tokens = torch.arange(len(sentence.names), device=content.device)
        rows = table_rows(tokens[:, None] - tokens, sentence.encoder.config)  # (T, T)
        c2p, p2c = head.position_terms(rows)
        grids = [
            grid("content to content: query · key", content),
            grid("bucket of the distance, row minus column", rows - sentence.encoder.config.span, ".0f"),
            grid("c2p, content to position: query · key of the bucket", c2p),
            grid("p2c, position to content: query of the bucket · key", p2c),
            grid("scores: the sum of content to content, c2p and p2c", scores),
        ]
    return Step(
        f"Queries and keys: {head.place}",
        where,
        f"Each token asks with its query (row) and is found by its key (column). score = {terms} / "
        f"sqrt({head.scale**-2 / K:.0f} · K), K = {K}. The larger the score, the more of the column goes into the row.",
        (_lengths(sentence, "length", query=head.query, key=head.key), *grids),
    )


def _mixture(sentence: Sentence, head: Head) -> list[Step]:
    """From scores to weights, and from values to what is mixed of them."""
    T = len(sentence.names)
    weights = _numbers(head.weights()).reshape(T, T)
    everything = sentence.recording.outputs[head.attention]
    return [
        Step(
            f"Softmax: {head.place}",
            _where(layers.attention),
            "exp(score), divided by the sum of its row: the weights of a row sum up to 1. The sum of a column says how much "
            "all tokens together look at that one.",
            (Table("weights", sentence.names, sentence.names, weights, shaded=True, sums=True),),
        ),
        Step(
            f"Mixture: {head.place}",
            _where(type(head.attention).forward),
            "Each token takes the mean of all values with these weights. What all heads found is put side by side, and one "
            "more linear map mixes it.",
            (_lengths(sentence, "length", **{"value": head.value, "mixture": head.mixed, "output, all heads": everything}),),
        ),
    ]


def _residuals(sentence: Sentence, block: Any, layer: int) -> list[Step]:
    """What attention and feed-forward add to what came in."""
    inputs, outputs = sentence.recording.inputs, sentence.recording.outputs

    def lengths(before: Tensor, part: nn.Module, norm: nn.Module) -> Table:
        columns = {"before": before, "what is added": outputs[part], "sum": inputs[norm][0], "after norm": outputs[norm]}
        return _lengths(sentence, "length", **columns)

    hidden = inputs[block.feed_forward.contract][0]  # (1, T, M), after the activation
    open_share = (hidden > 0).double().mean() * 100
    return [
        Step(
            f"Residual and norm: layer {layer}",
            _where(layers.EncoderLayer.forward),
            "What attention found is added to what came in, and LayerNorm brings the vectors to similar lengths again.",
            (lengths(inputs[block][0], block.attention, block.attention_norm),),
        ),
        Step(
            f"Feed-forward: layer {layer}",
            _where(layers.FeedForward.forward),
            f"Each token is worked on by itself: to {hidden.shape[-1]} columns, through the activation, which leaves "
            f"{open_share:.0f} % of them above 0 here, and back to {block.feed_forward.contract.out_features}. Then again the "
            "sum and the norm.",
            (lengths(outputs[block.attention_norm], block.feed_forward, block.feed_forward_norm),),
        ),
    ]


def _layers(sentence: Sentence) -> Step:
    """How far each layer turns each token."""
    inputs, outputs = sentence.recording.inputs, sentence.recording.outputs
    turns = {
        f"layer {number}": similarity_pairwise(inputs[block][0][0].detach(), outputs[block][0].detach())
        for number, block in enumerate(sentence.encoder.layers, start=1)
    }
    return Step(
        f"All {len(turns)} layers",
        _where(type(sentence.encoder).forward),
        "Each layer does the same with weights of its own. The table shows the cosine of each token's vector before and after "
        "a layer: 1 = not changed, smaller = turned by what the other tokens say.",
        (_per_token(sentence, "cosine before and after", turns),),
    )


def _pooling(model: SentenceEncoder, sentences: Sequence[Sentence]) -> list[Step]:
    """From tokens to the vector."""
    first = sentences[0]
    pooled = first.parts.sum(0)  # (D,)
    shares = first.parts @ pooled / pooled.square().sum()  # (T,)
    lengths = _numbers(torch.stack([each.vector.norm() for each in sentences]))
    return [
        Step(
            f"Pooling: {model.pooling.mode}",
            _where(type(model.pooling).forward),
            "All vectors of tokens become one vector of the text. The share says how much of it a token gives, along its "
            "direction; the shares sum up to 1.",
            (_per_token(first, "", {"length": first.recording.tokens[0].norm(dim=-1), "share": shares}),),
        ),
        Step(
            "The vector",
            _where(SentenceEncoder.encode),
            f"This is what encode() returns: {model.embedding_dimension} numbers."
            + (" They are scaled to length 1." if first.vector.norm().sub(1).abs() < 1e-5 else ""),
            tuple(
                Bars(f"text {number}, length {length:.3f}", _numbers(each.vector))
                for number, (each, length) in enumerate(zip(sentences, lengths, strict=True), start=1)
            ),
        ),
    ]


def _cosine(model: SentenceEncoder, first: Sentence, second: Sentence) -> Step:
    """Which tokens make the cosine."""
    return Step(
        "Why are they alike?",
        _where(cosine_by_tokens),
        "A vector is the sum of what its tokens give, so the cosine is a sum over pairs of tokens. This is no estimate: the "
        f"cells sum up to the cosine (pooling: {model.pooling.mode}). A negative cell is a pair that speaks against it.",
        (why_alike(first, second),),
    )


class GradientDescent(torch.optim.Optimizer):
    """The simplest optimizer: parameter = parameter - rate · gradient, so that a reader can follow the loss with a pencil.

    `Optimizer.__init__` is not called: it imports torch's compiler, which takes as long as the rest of the tour.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.param_groups = [{"params": list(parameters)}]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter -= group["lr"] * parameter.grad

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for parameter in self.param_groups[0]["params"]:
            parameter.grad = None


def _training(model: SentenceEncoder, sentences: Sequence[Sentence]) -> Step:
    """One step of training on the two texts; the model itself is not moved."""
    learner = SentenceEncoder(copy.deepcopy(model.encoder), model.pooling, model.tokenizer, model.folder).eval()
    plan, loss = Plan(epochs=1, learning_rate=1e-3), CosineSimilarityLoss()
    batch = Batch(tuple([each.text] for each in sentences), [1.0])
    optimizer = GradientDescent(learner.parameters())
    with torch.enable_grad():
        before, norm, _ = train_step(learner, optimizer, batch, loss, plan.learning_rate, plan, "tour")
    with torch.no_grad():
        embeddings, _ = embed_columns(learner, batch.texts)
        after = float(loss(embeddings, torch.ones(1, device=learner.device)))
    numbers = {"loss before": before, "length of the gradient": norm, "learning rate": plan.learning_rate, "loss after": after}
    return Step(
        "One training step",
        _where(train_step),
        "Say that somebody has labelled the two texts with 1, the same meaning. The loss is (cosine - label)². Its gradient "
        "says which way each parameter must go. If it is longer than "
        f"{plan.max_grad_norm:g}, it is shortened to that. Then each parameter moves by rate · gradient, so the loss falls by "
        "about rate · length. (Training has AdamW, which moves all parameters about equally far: training/optim.py.) This is a "
        "copy of the model, without dropout.",
        (Table("", tuple(numbers), ("value",), np.array([*numbers.values()])[:, None], ".6g"),),
    )


def _per_token(sentence: Sentence, title: str, columns: Mapping[str, Tensor]) -> Table:
    """A row for each token; the columns are (T,) each."""
    numbers = _numbers(torch.stack(list(columns.values()), dim=1))  # (T, number of columns)
    return Table(title, sentence.names, tuple(columns), numbers)


def _lengths(sentence: Sentence, title: str, **vectors: Tensor) -> Table:
    """The lengths of vectors, (..., T, D) each, a row for each token."""
    return _per_token(sentence, title, {name: each.norm(dim=-1).flatten() for name, each in vectors.items()})


def _numbers(tensor: Tensor) -> Numbers:
    """For tables."""
    return tensor.detach().double().cpu().numpy()


def _where(function: Callable[..., Any]) -> str:
    """The file and name of a function: "models/layers.py attention()"."""
    return f"{function.__module__.removeprefix('minisbert.').replace('.', '/')}.py {function.__qualname__}()"


if __name__ == "__main__":
    import sys

    from minisbert.cli.tour import main

    sys.exit(main())
