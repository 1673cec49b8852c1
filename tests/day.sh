#!/usr/bin/env bash
# A day with 5,000 questions, each step one command: vectors, searches, duplicates, groups, and a model trained on pairs of
# one's own. Takes one to two minutes on two cores:
#
#     tests/day.sh [FOLDER]         # a new folder for what is made; without one, it is removed in the end
set -euo pipefail

checkout=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 0 ]; then
    mkdir -p "$1" && cd "$1"
else
    cd "$(mktemp -d)"
    trap 'rm -rf "$PWD"' EXIT
fi
step() { printf '\n%4d s  $ %s\n' "$SECONDS" "${*//$checkout\//}" >&2 && "$@"; }

# The questions, class<TAB>text, ten of each class one after the other: ParaKQC (Cho et al. 2020), where it lies beside the
# checkout, else invented ones. Classes 0 to 399 become pairs to train on, 400 to 449 choose the best model, the rest measure it.
corpus=$checkout/../shared/data/paraKQC/paraKQC_v1.txt
{
    if [ -e "$corpus" ]; then
        awk -F '\t' 'NR <= 5000 {print int((NR - 1) / 10) "\t" $3}' "$corpus"
    else
        python "$checkout/tests/questions.py"
    fi
} > rows.tsv
{ printf 'class\ttext\n'; cat rows.tsv; } > questions.tsv
awk -F '\t' 'NR % 500 == 1 {print $2}' rows.tsv > ten.txt
{ printf 'anchor\tpositive\n'; awk -F '\t' '$1 < 400 {if (NR % 10 == 1) first = $2; else print first "\t" $2}' rows.tsv; } > pairs.tsv
awk -F '\t' 'BEGIN {print "class\ttext"} $1 >= 400 && $1 < 450' rows.tsv > dev.tsv
awk -F '\t' 'BEGIN {print "class\ttext"} $1 >= 450' rows.tsv > test.tsv

step python "$checkout/encode.py" -i questions.tsv -o vectors.npy
step python "$checkout/encode.py" -i questions.tsv --vectors vectors.npy --queries ten.txt --top-k 3 > hits.tsv
step python "$checkout/encode.py" -i questions.tsv --vectors vectors.npy --duplicates 0.95 > duplicates.tsv
step python "$checkout/encode.py" -i questions.tsv --vectors vectors.npy --groups 0.8 > groups.tsv
step python -m minisbert.cli.main mine --pairs pairs.tsv -o triplets.jsonl
step python "$checkout/train.py" --train triplets.jsonl --loss mnrl --dev dev.tsv --test test.tsv --batch-size 64 -o questions-model
step python "$checkout/encode.py" -m questions-model -i questions.tsv --query "내일 서울 날씨 어때?" --top-k 3
if python -c 'import sentence_transformers' 2> /dev/null; then
    step python -c 'from sentence_transformers import SentenceTransformer; print(SentenceTransformer("questions-model"))'
fi
