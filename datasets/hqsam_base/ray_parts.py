"""Parts of a stage as tasks on a Ray cluster, for the seam of `hqsam_base.processes`.

`HQSAM_EXECUTOR=ray` with `RAY_ADDRESS` asks for it; a Ray that is started for want of an address has
no other nodes, so there the parts stay on this machine's processes. A task is one part. It is done
again when its node or process dies (`TRIES` times), never when the part itself raises.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from hqsam_base import own_code, ray_files
from hqsam_base.errors import UserError

TRIES = 3
"""How often a part is done again whose node or process died."""
_LIBRARIES = ("numpy", "opencv-python-headless", "pillow", "pyarrow", "torch")
_loaded: dict[str, tuple[Callable[..., Any], Any]] = {}


def asked() -> bool:
    """Return whether the environment names a cluster to hand parts to."""
    return os.environ.get("HQSAM_EXECUTOR") == "ray" and bool(os.environ.get("RAY_ADDRESS"))


class Tasks:
    """One function on many arguments, as tasks on the cluster.

    The function and its job travel once, by Ray's object store. With `HQSAM_PARTS_URL` the files and
    folders that the job names travel by that URL, and no node needs this machine's file system.

    Args:
        function: a module-level function of the job and one argument.
        job: what it works on; picklable.
        cpus: that a task takes.
        on_gpu: whether a task takes a GPU, where the cluster has any.

    Raises:
        UserError: Ray is missing, the cluster does not answer or has no room for a task.
    """

    def __init__(
        self, function: Callable[[Any, Any], Any], job: Any, *, cpus: int = 1, on_gpu: bool = False
    ) -> None:
        self._ray = ray = _connected()
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpu = int(on_gpu and any(node.get("GPU", 0) >= 1 for node in alive))
        # A task that asks for more than any node has would wait for ever.
        cpu = min(cpus, int(max((node.get("CPU", 0) for node in alive), default=0)))
        if cpu < 1:
            cure = "start nodes with CPUs (`ray start --address=...`)"
            raise UserError("no node of the Ray cluster has a CPU", key="RAY_ADDRESS", cure=cure)
        self.slots = sum(
            int(min(node.get("CPU", 0) // cpu, node.get("GPU", 0) if gpu else node.get("CPU", 0)))
            for node in alive
        )
        content = ray_files.dumps((function, job))
        self._name = hashlib.sha256(content).hexdigest()
        self._content = ray.put(content)
        self._task = ray.remote(_task).options(
            num_cpus=cpu, num_gpus=gpu, max_retries=TRIES, retry_exceptions=False
        )

    def start(self, argument: Any) -> Any:
        """Start the task of one argument; gives what `result` takes."""
        return self._task.remote(
            str(Path.cwd()), _code_digest(), self._name, self._content, argument
        )

    def result(self, task: Any) -> Any:
        """Wait for a task and return what its function returned.

        Raises:
            UserError: nodes or processes died under it again and again.
            Exception: what the function raised.
        """
        try:
            return self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            cure = "look at the nodes (`ray status`), their memory first; then run it again"
            raise UserError(
                f"a part was lost with its node or process, {TRIES + 1} times ({said})",
                key="RAY_ADDRESS",
                cure=cure,
            ) from error

    def in_order(self, arguments: Iterable[Any], *, ahead: int = 2) -> Iterator[Any]:
        """Yield the results in the order of the arguments; `ahead` tasks for each slot are under way."""
        pending: deque[Any] = deque()
        try:
            for argument in arguments:
                pending.append(self.start(argument))
                if len(pending) >= ahead * max(1, self.slots):
                    yield self.result(pending.popleft())
            while pending:
                yield self.result(pending.popleft())
        finally:
            self._cancel(pending)

    def as_done(self, arguments: Iterable[Any], *, ahead: int = 2) -> Iterator[Any]:
        """Yield the results as the tasks end; `ahead` tasks for each slot are under way.

        Ray looks at all of them whenever one ends: ten thousand at a time cost seconds each.
        """
        waiting = iter(arguments)
        left = [self.start(one) for one in itertools.islice(waiting, ahead * max(1, self.slots))]
        try:
            while left:
                done, left = self._ray.wait(left, num_returns=1)
                left += [self.start(one) for one in itertools.islice(waiting, 1)]
                yield self.result(done[0])
        finally:
            self._cancel(left)

    def _cancel(self, tasks: Iterable[Any]) -> None:
        for task in tasks:
            with contextlib.suppress(self._ray.exceptions.RayError):
                self._ray.cancel(task, force=True)


def _connected() -> Any:
    try:
        import ray
    except ImportError as error:
        cure = "pip install 'hqsam-pipeline[ray]'"
        raise UserError("HQSAM_EXECUTOR=ray needs the module 'ray'", cure=cure) from error
    if not ray.is_initialized():
        try:
            ray.init(
                address=os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level="WARNING"
            )
        except (ConnectionError, RuntimeError, ValueError) as error:
            said = next(iter(str(error).splitlines()), type(error).__name__)
            raise UserError(
                f"the Ray cluster cannot be joined: {said}",
                key="RAY_ADDRESS",
                cure="`hqsam doctor` says what is wrong with it",
            ) from error
    return ray


@functools.cache
def _code_digest() -> str:
    """The digest of this project's code and of the libraries that make numbers, as this process has them."""
    from importlib import metadata  # heavy, and needed on a cluster alone

    total = hashlib.sha256()
    own = Path(__file__).resolve().parents[1]
    home = own.parent if own.name in own_code.PLACES else own
    for name, folder in sorted(own_code.packages(home).items()):
        for path in sorted(folder.rglob("*.py")):
            total.update(f"{name}/{path.relative_to(folder)}\n".encode() + path.read_bytes())
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            total.update(f"{name}={metadata.version(name)}\n".encode())
    return total.hexdigest()


def _task(folder: str, code: str, name: str, content: bytes, argument: Any) -> Any:
    """One part, on a node; the node's own checkout is used where it lies under another path."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if Path(folder).is_dir():
        os.chdir(folder)  # Ray changes it; paths of the params may be relative to the repository
    own_code.use_here()
    # Other code may have been loaded by that: this function is of the code that is forgotten.
    return importlib.import_module(__name__).do(code, name, content, argument)


def do(code: str, name: str, content: bytes, argument: Any) -> Any:
    """Do one part in this process.

    Args:
        code: the driver's `_code_digest`.
        name: digest of `content`; what was unpickled for the last part serves the next one.
        content: function and job, pickled. Whoever reaches Ray's ports runs commands on the nodes
            anyway, so that this adds no border.
        argument: the function's second one.

    Raises:
        UserError: this node has other code, or other libraries, than the driver.
    """
    if name not in _loaded:
        if _code_digest() != code:
            cure = "bring all nodes to one revision and `pip install -c constraints.txt` there"
            where = f"the node {os.uname().nodename}"
            raise UserError(
                f"{where} has other code or libraries than where the stage runs", cure=cure
            )
        _loaded.clear()
        _loaded[name] = ray_files.loads(content)
    function, job = _loaded[name]
    return function(job, argument)
