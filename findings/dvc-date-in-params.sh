#!/usr/bin/env bash
# dvc 3.67.1: a date anywhere in params.yaml, used or not, stops every command on the pipeline with "unexpected error".
# Guess: the date is text for templates and for dvc.lock; at worst the stage that uses it fails.
# What happens: YAML reads 2026-11-30 as a date; DVC resolves the whole file before it looks at any stage and refuses the type.
# Seen: dvc 3.67.1: repro and status: "unexpected error - Unsupported value of type 'date'"; quoted: all runs
# Hurts: who notes the release of a data set in params.yaml; the message names no cure (quotes).

. "$(dirname "$0")/_setup.sh"
install dvc==3.67.1
export DVC_NO_ANALYTICS=1 HOME="$work"
git init --quiet .
dvc init --quiet
cat > dvc.yaml <<'YAML'
stages:
  greet:
    cmd: echo hello > hello.txt
    params: [lr]
    outs: [hello.txt]
YAML
printf 'lr: 0.1\nreleased: 2026-11-30\n' > params.yaml
seen=""
for command in repro status; do
    seen+=$( (dvc "$command" 2>&1 || true) | grep -o "unexpected error - Unsupported value of type 'date'" || echo "no error")";"
done
printf 'lr: 0.1\nreleased: "2026-11-30"\n' > params.yaml
dvc repro --quiet && seen+="quoted: $(cat hello.txt)"
echo "seen now: $(dvc --version): $seen"
error="unexpected error - Unsupported value of type 'date'"
[ "$seen" = "$error;$error;quoted: hello" ] || { echo "the behaviour changed"; exit 1; }
