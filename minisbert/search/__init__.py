"""What one does with vectors: find the nearest texts, duplicates, groups, and hard negatives to train on."""

from minisbert.search.duplicates import paraphrase_mining
from minisbert.search.groups import community_detection
from minisbert.search.nearest import semantic_search
from minisbert.search.negatives import mine_hard_negatives

__all__ = ["community_detection", "mine_hard_negatives", "paraphrase_mining", "semantic_search"]
