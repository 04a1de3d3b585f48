#!/usr/bin/env bash
# Prefect 3.8.8 with SQLAlchemy 2.1.9 (which it allows): no schedule ever starts a run; the deployment looks healthy.
# Guess: what pip installs together schedules runs; a scheduler that fails shows in the state of the deployment, the work pool or the health check.
# What happens: each round of the scheduler raises "Can't evaluate bulk DML statement" in the server's log and nowhere else; with SQLAlchemy 2.0.58 the runs appear.
# Seen: prefect 3.8.8: SQLAlchemy 2.1.9: 0 runs scheduled; SQLAlchemy 2.0.58: some runs scheduled
# Hurts: every nightly run, after the environment was made anew.

. "$(dirname "$0")/_setup.sh"
unset PYTHONDONTWRITEBYTECODE
export PREFECT_HOME="$work/prefect" PREFECT_SERVER_ANALYTICS_ENABLED=false DO_NOT_TRACK=1 PREFECT_API_URL=http://127.0.0.1:48211/api NO_PROXY=127.0.0.1
cat > look.py <<'PY'
import datetime
import subprocess
import sys
import time

import httpx

server = subprocess.Popen(
    [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", "48211"],
    stdout=open("server.log", "w"),
    stderr=subprocess.STDOUT,
)
try:
    api = httpx.Client(base_url="http://127.0.0.1:48211/api", trust_env=False, timeout=30)

    def up():
        try:
            return api.get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    until = time.monotonic() + 300
    while not up() and time.monotonic() < until:
        time.sleep(0.5)
    flow = api.post("/flows/", json={"name": "nightly"}).json()["id"]
    api.post("/work_pools/", json={"name": "pool", "type": "process"}).raise_for_status()
    every = {"interval": 3600, "anchor_date": datetime.datetime.now(datetime.UTC).isoformat()}
    made = {"name": "d", "flow_id": flow, "work_pool_name": "pool", "entrypoint": "x.py:f"}
    api.post("/deployments/", json={**made, "schedules": [{"schedule": every, "active": True}]}).raise_for_status()
    until, runs = time.monotonic() + 45, 0
    while not runs and time.monotonic() < until:
        time.sleep(1)
        runs = api.post("/flow_runs/count", json={}).json()
    print("some runs scheduled" if runs else "0 runs scheduled")
finally:
    server.terminate()
    server.wait()
PY
install prefect==3.8.8 sqlalchemy==2.1.9 fastapi==0.150.0
with=$(python look.py)
install sqlalchemy==2.0.58
rm -rf "$PREFECT_HOME"
without=$(python look.py)
seen="SQLAlchemy 2.1.9: $with; SQLAlchemy 2.0.58: $without"
echo "seen now: prefect 3.8.8: $seen"
[ "$seen" = "SQLAlchemy 2.1.9: 0 runs scheduled; SQLAlchemy 2.0.58: some runs scheduled" ] || { echo "the behaviour changed"; exit 1; }
