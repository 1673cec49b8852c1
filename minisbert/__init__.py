"""minisbert: sentence embeddings from hand-written BERT, RoBERTa and DeBERTa-v2 encoders.

from minisbert import SentenceEncoder
model = SentenceEncoder.from_pretrained("jhgan/ko-sroberta-multitask")
vectors = model.encode(["한 남자가 음식을 먹는다.", "한 남자가 빵을 먹는다."])  # float32 (2, 768)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from minisbert.sentence_encoder import SentenceEncoder

__all__ = ["SentenceEncoder"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import `SentenceEncoder` when it is first used: `python encode.py --help` need not wait for torch."""
    if name == "SentenceEncoder":
        from minisbert.sentence_encoder import SentenceEncoder

        return SentenceEncoder
    raise AttributeError(f"module 'minisbert' has no attribute {name!r}")
