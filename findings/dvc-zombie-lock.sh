#!/usr/bin/env bash
# dvc 3.67.1: a killed `dvc repro` that its parent has not waited for keeps its lock: the next run is told that the file is busy.
# Guess: DVC removes the entries of dead processes from its lock file (it does for processes that are gone), so a killed run never blocks the next.
# What happens: it asks whether the process number exists, and a zombie's does; the message advises to delete the lock file by hand.
# Seen: dvc 3.67.1: while the parent has not waited: busy, "manually remove"; after it has: hello
# Hurts: schedulers, notebooks and containers without an init process, whose children stay zombies for as long as they run.

. "$(dirname "$0")/_setup.sh"
install dvc==3.67.1
export DVC_NO_ANALYTICS=1 HOME="$work"
git init --quiet .
dvc init --quiet
cat > dvc.yaml <<'YAML'
stages:
  greet:
    cmd: sh -c 'sleep ${wait} ; echo hello > hello.txt'
    outs: [hello.txt]
YAML
echo 'wait: 60' > params.yaml
cat > run.py <<'PY'
import os
import pathlib
import signal
import subprocess
import time


def again():
    done = subprocess.run(["dvc", "repro"], capture_output=True, text=True)
    if done.returncode == 0:
        return pathlib.Path("hello.txt").read_text().strip()
    return 'busy, "manually remove"' if "manually remove" in done.stdout + done.stderr else done.stdout + done.stderr


lock = pathlib.Path(".dvc/tmp/rwlock")
first = subprocess.Popen(["dvc", "repro", "--quiet"], stderr=subprocess.DEVNULL, start_new_session=True)
while not (lock.exists() and "hello.txt" in lock.read_text()):
    time.sleep(0.1)
os.killpg(first.pid, signal.SIGKILL)  # DVC and the stage: both are dead, nobody has waited for DVC
time.sleep(0.5)
pathlib.Path("params.yaml").write_text("wait: 0\n")
before = again()
first.wait()
print(f"while the parent has not waited: {before}; after it has: {again()}")
PY
seen=$(python run.py)
echo "seen now: dvc $(dvc --version): $seen"
[ "$seen" = 'while the parent has not waited: busy, "manually remove"; after it has: hello' ] || { echo "the behaviour changed"; exit 1; }
