"""kill -9 at random moments: after a restart the bytes are those of an undisturbed run and nothing else is left.

The stages' processes are forks of one that has made their imports, which take longer than the work.
Three kills per stage, to keep the suite short; `make test-all`: twenty.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.datasets.fetch.server import Behaviour, serving
from tests.datasets.trees import contents, ecssd, fault_count

KILLS = fault_count(3, 20)

PRELUDE = """
import sys
from pathlib import Path
from hqsam_datasets.prepare import augment, normalise, shards
from hqsam_datasets.fetch.spec import ArchiveSpec
from hqsam_datasets.fetch.extract import extracted
from hqsam_datasets.fetch.archive import fetch
from hqsam_datasets.sources.base import SourceOptions
normalise.MIN_SHARD = 4
def report(done, total, what): pass
here, url = Path(sys.argv[1]), sys.argv[2]
print("ready", flush=True)
"""

STAGES = {
    "fetch": """
files = [{"name": n, "urls": [url + "/" + n]} for n in ("one.zip", "two.zip")]
fetch(ArchiveSpec(files=files), here / "archives" / "set", progress=report)
""",
    "extract": """
extracted(here / "archives" / "set", here / "extracted")
""",
    "normalise": """
options = SourceOptions(archive="set", expected=120)
normalise.normalise("ecssd", root=here / "in", out=here / "samples" / "ecssd", options=options,
progress=report, workers=1)
""",
    "shard": """
shards.write_shards(samples={"ecssd": here / "samples" / "ecssd"}, exclusions=here / "exclusions.jsonl",
    out=here / "shards", options=shards.ShardOptions(samples_per_shard=2), progress=report, workers=1)
""",
    "augment": """
options = augment.AugmentOptions(image_size=64, mask_input_size=32, views=3)
augment.write_prompts(shards=here / "shards", out=here / "prompts", options=options, seed=0, progress=report, workers=1)
""",
}
OUTPUTS = {
    "fetch": "archives",
    "extract": "extracted",
    "normalise": "samples",
    "shard": "shards",
    "augment": "prompts",
}


FORKS = """
import json, os, traceback
for line in sys.stdin:
    code, folder, url = json.loads(line)
    here = Path(folder)
    if (pid := os.fork()) == 0:
        try:
            exec(code)
            os._exit(0)
        finally:
            traceback.print_exc()
            os._exit(1)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Stages:
    """A process with the imports made, which runs one stage at a time in a fork."""

    def __init__(self) -> None:
        words = [sys.executable, "-c", PRELUDE + FORKS, "none", "none"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True)
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, stage: str, here: Path, url: str) -> int:
        """The process number of the fork."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([STAGES[stage], str(here), url]) + "\n")
        self.process.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """The exit status of the fork, negative: ended by a signal."""
        return int(self._line())

    def finish(self, stage: str, here: Path, url: str) -> float:
        """Run the stage to its end; returns the seconds that it took."""
        self.start(stage, here, url)
        begun = time.monotonic()
        assert self.wait() == 0
        return time.monotonic() - begun


@pytest.fixture(scope="module")
def stages() -> Iterator[Stages]:
    found = Stages()
    yield found
    found.process.kill()
    found.process.communicate()


def a_zip(seed: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for i in range(40):
            archive.writestr(
                zipfile.ZipInfo(f"d/{i}.bin"), random.Random(seed * 100 + i).randbytes(20_000)
            )
    return buffer.getvalue()


Reference = tuple[Path, dict[str, Behaviour], dict[str, float]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, stages: Stages) -> Reference:
    """Folder with every stage's output, what the server has, and the seconds that each stage took."""
    here = tmp_path_factory.mktemp("undisturbed")
    routes = {f"/{name}.zip": Behaviour(a_zip(i)) for i, name in enumerate(("one", "two"))}
    ecssd(here / "in", n=120)
    (here / "exclusions.jsonl").write_text(
        '{"key": "ecssd_0007", "reason": "exact", "pair": "p"}\n'
    )
    with serving(routes) as url:
        took = {stage: stages.finish(stage, here, url) for stage in STAGES}
    return here, routes, took


@pytest.mark.parametrize("stage", STAGES)
def test_killed_and_restarted(
    stage: str, undisturbed: Reference, stages: Stages, tmp_path: Path
) -> None:
    reference, routes, took = undisturbed
    names = ["in", "exclusions.jsonl", *OUTPUTS.values()]
    for name in names[: 2 + list(STAGES).index(stage)]:
        (tmp_path / name).symlink_to(reference / name)
    expected = contents(reference / OUTPUTS[stage])
    dice = random.Random(hashlib.sha256(stage.encode()).digest())
    moments: list[float] = []
    with serving(routes) as url:
        for _ in range(10 * KILLS):
            pid = stages.start(stage, tmp_path, url)
            moment = dice.uniform(0.0, took[stage])
            time.sleep(moment)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            if stages.wait() == -signal.SIGKILL:
                moments.append(moment)
            else:  # it was over already: begin anew, so that the next kill finds work
                shutil.rmtree(tmp_path / OUTPUTS[stage])
            if len(moments) == KILLS:
                break
        stages.finish(stage, tmp_path, url)
    assert len(moments) == KILLS
    assert contents(tmp_path / OUTPUTS[stage]) == expected, f"killed after {moments}"
    hidden = [p.name for p in tmp_path.rglob(".*") if p.name != ".complete.json"]
    assert hidden == [], f"killed after {moments}"


FULL = """
from hqsam_base.errors import UserError
try:
    exec(CODE)
except UserError as error:
    print("user error:", str(error).replace("\\n", " "))
"""


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_a_message_and_leaves_nothing_half_written(
    stage: str, undisturbed: Reference, tmp_path: Path
) -> None:
    """The output lies on a tmpfs of 96 KiB, mounted in a name space of its own."""
    reference, routes, _ = undisturbed
    small = tmp_path / "small"
    small.mkdir()
    names = ["in", "exclusions.jsonl", *OUTPUTS.values()][: 2 + list(STAGES).index(stage)]
    links = " && ".join(f"ln -s '{reference / name}' '{small / name}'" for name in names)
    code = FULL.replace("CODE", repr(PRELUDE + STAGES[stage]))
    script = (
        f"mount -t tmpfs -o size=96k tmpfs '{small}' && {links} && "
        f"'{sys.executable}' -c \"$CODE\" '{small}' \"$URL\" && ls -A '{small}' "
        f"'{small}/{OUTPUTS[stage]}' 2>&1"
    )
    with serving(routes) as url:
        done = subprocess.run(
            ["unshare", "-rm", "sh", "-c", script],
            env={**os.environ, "CODE": code, "URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    if "ready" not in done.stdout:
        pytest.skip(f"no tmpfs in a user name space here: {done.stderr.strip()[:200]}")
    assert "user error: " in done.stdout, done.stderr
    assert "disk" in done.stdout and "free some space" in done.stdout
    for name in (".tmp-", "fetch.json", ".complete.json", "normalise.json", "index.json"):
        assert name not in done.stdout
