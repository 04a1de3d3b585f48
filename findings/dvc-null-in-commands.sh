#!/usr/bin/env bash
# dvc 3.67.1: a null of params.yaml reaches the command as the word None.
# Guess: `${limit}` of a null is empty, and a dictionary that is unpacked into options leaves a null option out, as it leaves
#     out one that is false.
# What happens: both write the text None: `--limit None`. A `type=float` option refuses it, one of text takes "None" for a name.
#     Beside it, false leaves its option out and true becomes a flag, so only null is left without a form.
# Seen: dvc 3.67.1: "[None] --rate 0.1 --limit None --flag"
# Hurts: optional thresholds, paths and seeds (`limit: null`) that a stage takes from params.yaml through its command.

. "$(dirname "$0")/_setup.sh"
install dvc==3.67.1
export DVC_NO_ANALYTICS=1 HOME="$work"
git init --quiet .
dvc init --quiet
cat > params.yaml <<'YAML'
limit: null
options: {rate: 0.1, limit: null, flag: true, quiet: false}
YAML
cat > dvc.yaml <<'YAML'
stages:
  show:
    cmd: echo "[${limit}]" ${options} > seen.txt
    outs: [seen.txt]
YAML
dvc repro --quiet
echo "seen now: $(cat seen.txt)"
[ "$(cat seen.txt)" = "[None] --rate 0.1 --limit None --flag" ] || { echo "the behaviour changed"; exit 1; }
