"""How the published models were trained, one row each; `python train.py --list-recipes` prints them.

Sources: the models' cards and repositories (jhgan00/ko-sentence-transformers, upskyy/kf-deberta-multitask) and the training
scripts of sentence-transformers 2.x that they name. Epochs and seeds of the -nli models are the defaults of those scripts.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """One objective: data, loss and batch size."""

    data: str  # "nli": KorNLI triplets; "sts": KorSTS pairs; "own": a file of yours; others: see mini.py
    loss: str  # "mnrl" or "cosine"
    batch_size: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained, but for the machine."""

    name: str
    base: str | None  # the model to start from; None = from nothing
    tasks: tuple[Task, ...]
    epochs: int
    warmup: int | float  # steps, or a share of all steps
    seed: int
    learning_rate: float = 2e-5
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    optimizer: str = "original-adamw"  # sentence-transformers before 2.2.2 took that of transformers
    eps: float = 1e-6
    max_seq_length: int | None = 128  # tokens; None = as the base has it
    matryoshka_dims: tuple[int, ...] = ()
    model_type: str | None = None  # what to make from nothing, see mini.py
    korsts: float | None = None  # published Spearman of cosine on KorSTS test, x100


NLI, LARGE_NLI, STS = Task("nli", "mnrl", 64), Task("nli", "mnrl", 128), Task("sts", "cosine", 8)
DIMS = (768, 512, 256, 128, 64, 32)
MINI = {"ko-mini": "deberta-v2", "ko-mini-roberta": "roberta", "ko-mini-bert": "bert"}
ROBERTA, BERT, DEBERTA = "klue/roberta-base", "klue/bert-base", "kakaobank/kf-deberta-base"

# fmt: off
_ROWS = (
    # name, base, tasks, epochs, warm-up, seed
    Recipe("ko-sroberta-multitask",     ROBERTA, (NLI, STS), 5, 360, 777, korsts=85.60),
    Recipe("ko-sroberta-nli",           ROBERTA, (NLI,),     1, 0.1, 777, korsts=83.85),
    Recipe("ko-sroberta-sts",           ROBERTA, (STS,),     5, 0.1, 777, korsts=81.82),
    Recipe("ko-sbert-multitask",        BERT,    (NLI, STS), 5, 360, 777, korsts=84.71),
    Recipe("ko-sbert-nli",              BERT,    (NLI,),     1, 0.1, 777, korsts=83.16),
    Recipe("ko-sbert-sts",              BERT,    (STS,),     4, 288, 777, korsts=81.23),
    Recipe("kf-deberta-multitask",      DEBERTA, (LARGE_NLI, STS), 10, 719, 42, optimizer="adamw", eps=1e-8, korsts=86.25),
    Recipe("ko-sroberta-multitask-mrl", ROBERTA, (NLI, STS), 5, 360, 777, matryoshka_dims=DIMS, korsts=85.07),
    Recipe("ko-sroberta-nli-mrl",       ROBERTA, (NLI,),     1, 0.1, 777, matryoshka_dims=DIMS, korsts=84.07),
    Recipe("ko-sroberta-sts-mrl",       ROBERTA, (STS,),     5, 0.1, 777, matryoshka_dims=DIMS, korsts=81.84),
    # A user's fine-tune on ten question-answer pairs, labels 1.0: the data are given with --train.
    Recipe("pet-questions", "jhgan/ko-sroberta-multitask", (Task("own", "cosine", 16),), 5, 0, 42,
           learning_rate=5e-5, weight_decay=0.0, optimizer="adamw", eps=1e-8),
    # The default model in weights/, from nothing, in each architecture; see mini.py.
    *(Recipe(name, None, (Task("pairs", "mnrl", 48), Task("sts", "cosine", 32)), 6, 50, 1,
             learning_rate=5e-4, optimizer="adamw", eps=1e-8, max_seq_length=64, model_type=model_type)
      for name, model_type in MINI.items()),
)
# fmt: on
RECIPES = {recipe.name: recipe for recipe in _ROWS}


def own_recipe(base: str, loss: str) -> Recipe:
    """How data of one's own are trained on if the flags say nothing else."""
    task = Task("own", loss, 16)
    return Recipe("own", base, (task,), 1, 0.1, 42, optimizer="adamw", eps=1e-8, max_seq_length=None)


def describe_recipes() -> str:
    """The recipes as a table.

    >>> print(describe_recipes().splitlines()[1])
    ko-sroberta-multitask      klue/roberta-base            nli 64 mnrl, sts 8 cosine           5      360   85.60
    """
    lines = [f"{'recipe':27}{'base':29}{'data, batch size, loss':30}{'epochs':>7}{'warm-up':>9}{'KorSTS':>8}"]
    for recipe in RECIPES.values():
        tasks = ", ".join(f"{task.data} {task.batch_size} {task.loss}" for task in recipe.tasks)
        warmup = f"{recipe.warmup:.0%}" if isinstance(recipe.warmup, float) else str(recipe.warmup)
        korsts = "" if recipe.korsts is None else f"{recipe.korsts:.2f}"
        base = recipe.base or "(from nothing)"
        lines.append(f"{recipe.name:27}{base:29}{tasks:30}{recipe.epochs:>7}{warmup:>9}{korsts:>8}")
    return "\n".join(lines)
