"""Whether two runs differ by nothing but the machine that they ran on, by what they recorded.

Processors and graphics cards add up in other orders, so that the same commit gives other last bits
on another one, and a trained head other values. Such a difference says nothing about a change: it is
neither better nor worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hqsam_pipelines.compare.revisions import Revision

_MACHINE = ("cpu", "gpu", "threads", "machine", "system")
_SOFTWARE = ("lock", "python")
_INPUTS = ("data/code/", "data/archives/")
_REPORT = "data/code/report.json"  # its code moves no number


def other_machine(a: Revision, b: Revision) -> str:
    """Returns on which other machine B ran with the inputs of A, in words; empty if anything else differs or is unknown.

    Inputs are the parameters, the code and the archives that dvc.lock names, and the libraries; the
    machine is the model of processor and graphics card, and the number of threads.
    """
    hosts = [side.provenance.get("host", {}) for side in (a, b)]
    if not all(isinstance(host, Mapping) and host.get("cpu") for host in hosts):
        return ""
    same = (
        a.params == b.params
        and _inputs(a) == _inputs(b) != {}
        and all(hosts[0].get(key) == hosts[1].get(key) for key in _SOFTWARE)
        and a.provenance.get("libraries") == b.provenance.get("libraries")
    )
    if not same:
        return ""
    keys = [key for key in _MACHINE if hosts[0].get(key) != hosts[1].get(key)]
    return ", ".join(f"{key} {_word(hosts[0], key)} → {_word(hosts[1], key)}" for key in keys)


def _inputs(side: Revision) -> dict[str, str]:
    return {
        path: digest
        for path, digest in side.outputs.items()
        if path.startswith(_INPUTS) and path != _REPORT
    }


def _word(host: Mapping[str, Any], key: str) -> str:
    return str(host.get(key) or "none")
