"""How the published models were trained, one row each; `python train.py --list-recipes` prints them.

Sources: the models' cards and repositories (jhgan00/ko-sentence-transformers, upskyy/kf-deberta-multitask) and the training
scripts of sentence-transformers 2.x that they name. Epochs and seeds of the -nli models are the defaults of those scripts.
"""

from dataclasses import asdict, dataclass
from typing import Any

from minisbert.training.plan import Plan


@dataclass(frozen=True)
class Task:
    """One objective: data, loss and batch size."""

    data: str  # "nli": KorNLI triplets; "sts": KorSTS pairs; "own": a file of yours; others: see ko_mini.py
    loss: str  # "mnrl" or "cosine"
    batch_size: int


@dataclass(frozen=True)
class Recipe:
    """Everything that decides how a model is trained, except the machine."""

    name: str
    base: str | None  # the model to start from; None = from nothing
    tasks: tuple[Task, ...]
    plan: Plan
    max_seq_length: int | None = 128  # tokens; None = as the base has it
    matryoshka_dims: tuple[int, ...] = ()
    model_type: str | None = None  # what to make from nothing, see ko_mini.py
    korsts: float | None = None  # published Spearman of cosine on KorSTS test, x100

    def record(self) -> dict[str, Any]:
        """All fields by name, those of the plan beside the others."""
        fields = asdict(self)
        return fields | fields.pop("plan")


NLI, LARGE_NLI, STS = Task("nli", "mnrl", 64), Task("nli", "mnrl", 128), Task("sts", "cosine", 8)
DIMS = (768, 512, 256, 128, 64, 32)
MINI = {"ko-mini": "deberta-v2", "ko-mini-roberta": "roberta", "ko-mini-bert": "bert"}
ROBERTA, BERT, DEBERTA = "klue/roberta-base", "klue/bert-base", "kakaobank/kf-deberta-base"

OFTEN: dict[str, Any] = {"evaluation_steps": 1000, "checkpoint_steps": 500}
# sentence-transformers before 2.2.2 took the AdamW of transformers.
JHGAN: dict[str, Any] = {"seed": 777, "optimizer": "original-adamw", "eps": 1e-6, **OFTEN}
MULTITASK = Plan(5, warmup_steps=360, **JHGAN)
ONE_EPOCH, FIVE_EPOCHS = (Plan(epochs, warmup_ratio=0.1, **JHGAN) for epochs in (1, 5))
FROM_NOTHING = Plan(6, learning_rate=5e-4, warmup_steps=50, seed=1, **OFTEN)

# fmt: off
_ROWS = (
    Recipe("ko-sroberta-multitask",     ROBERTA, (NLI, STS), MULTITASK,   korsts=85.60),
    Recipe("ko-sroberta-nli",           ROBERTA, (NLI,),     ONE_EPOCH,   korsts=83.85),
    Recipe("ko-sroberta-sts",           ROBERTA, (STS,),     FIVE_EPOCHS, korsts=81.82),
    Recipe("ko-sbert-multitask",        BERT,    (NLI, STS), MULTITASK,   korsts=84.71),
    Recipe("ko-sbert-nli",              BERT,    (NLI,),     ONE_EPOCH,   korsts=83.16),
    Recipe("ko-sbert-sts",              BERT,    (STS,),     Plan(4, warmup_steps=288, **JHGAN), korsts=81.23),
    Recipe("kf-deberta-multitask",      DEBERTA, (LARGE_NLI, STS), Plan(10, warmup_steps=719, seed=42, **OFTEN), korsts=86.25),
    Recipe("ko-sroberta-multitask-mrl", ROBERTA, (NLI, STS), MULTITASK,   matryoshka_dims=DIMS, korsts=85.07),
    Recipe("ko-sroberta-nli-mrl",       ROBERTA, (NLI,),     ONE_EPOCH,   matryoshka_dims=DIMS, korsts=84.07),
    Recipe("ko-sroberta-sts-mrl",       ROBERTA, (STS,),     FIVE_EPOCHS, matryoshka_dims=DIMS, korsts=81.84),
    # A user's fine-tune on ten question-answer pairs, labels 1.0: the data are given with --train.
    Recipe("pet-questions", "jhgan/ko-sroberta-multitask", (Task("own", "cosine", 16),),
           Plan(5, learning_rate=5e-5, weight_decay=0.0, seed=42, **OFTEN)),
    # The default model in weights/, from nothing, in each architecture; see ko_mini.py.
    *(Recipe(name, None, (Task("pairs", "mnrl", 48), Task("sts", "cosine", 32)), FROM_NOTHING,
             max_seq_length=64, model_type=model_type) for name, model_type in MINI.items()),
)
# fmt: on
RECIPES = {recipe.name: recipe for recipe in _ROWS}


def own_recipe(base: str, loss: str) -> Recipe:
    """How data of one's own are trained on if the flags say nothing else."""
    plan = Plan(1, warmup_ratio=0.1, seed=42, **OFTEN)
    return Recipe("own", base, (Task("own", loss, 16),), plan, max_seq_length=None)


def describe_recipes() -> str:
    """The recipes as a table.

    >>> print(describe_recipes().splitlines()[1])
    ko-sroberta-multitask      klue/roberta-base            nli 64 mnrl, sts 8 cosine           5      360   85.60
    """
    lines = [f"{'recipe':27}{'base':29}{'data, batch size, loss':30}{'epochs':>7}{'warm-up':>9}{'KorSTS':>8}"]
    for recipe in RECIPES.values():
        tasks = ", ".join(f"{task.data} {task.batch_size} {task.loss}" for task in recipe.tasks)
        ratio = recipe.plan.warmup_ratio
        warmup = str(recipe.plan.warmup_steps) if ratio is None else f"{ratio:.0%}"
        korsts = "" if recipe.korsts is None else f"{recipe.korsts:.2f}"
        base = recipe.base or "(from nothing)"
        lines.append(f"{recipe.name:27}{base:29}{tasks:30}{recipe.plan.epochs:>7}{warmup:>9}{korsts:>8}")
    return "\n".join(lines)
