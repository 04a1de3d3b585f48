"""The further seeds of one benchmark and model at a revision, as `hqsam repro seeds` kept them in reports/seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from pydantic import Field, StrictInt

from hqsam_base.errors import UserError
from hqsam_metrics.matches_file import MATCHES, TRUTH, read_matches
from hqsam_pipelines import seeds
from hqsam_pipelines.compare.revisions import NotAvailableError, Revision
from hqsam_pipelines.config.strict import Digest, Outline, outlined, parse_json
from hqsam_pipelines.report.results import Result, parse_metrics
from hqsam_pipelines.report.units import units_frame

_MOST_ROWS = 40_000_000  # of all further seeds together: git keeps equal tables as one small file

if TYPE_CHECKING:
    import pandas as pd

    from hqsam_metrics.ap.resample import Matches


class _Index(Outline):
    """seeds.json."""

    seeds: StrictInt = Field(ge=2, le=100)
    metrics: dict[str, Digest]


class FurtherSeeds:
    """The trainings of one model with other seeds, scored on one benchmark.

    Attributes:
        results: by row (benchmark, model, prompt set, system), of each seed; the model has the name
            that it has without a seed.
        note: why seeds that are there are left out; empty if none are.

    Raises:
        UserError: a file of reports/seeds is damaged.
    """

    def __init__(self, revision: Revision, benchmark: str, model: str) -> None:
        self.results: list[dict[tuple[str, str, str, str], Result]] = []
        self.note = ""
        self._revision, self._folders = revision, list[str]()
        run, content = f"{benchmark}-{model}", revision.file(seeds.INDEX)
        if content is None:
            return
        where = f"{seeds.INDEX} at {revision.label}"
        index = outlined(_Index, parse_json(content, where), where)
        if run not in index.metrics:
            return
        if index.metrics[run] != revision.metrics.get(f"reports/metrics/{run}.json"):
            self.note = (
                f"{run}: the further seeds at {revision.label} are of another run than its "
                f"metrics: left out; `hqsam repro seeds` makes them anew"
            )
            return
        for number in range(1, index.seeds):
            folder = f"{seeds.FOLDER}/{benchmark}-{seeds.another(model, number)}"
            path = f"{folder}/{seeds.METRICS}"
            found = parse_metrics(self._content(path), f"{path} at {revision.label}")
            own = [replace(result, model=model) for result in found]
            self.results.append({result.row: result for result in own})
            self._folders.append(folder)

    def _content(self, path: str) -> bytes:
        content = self._revision.file(path)
        if content is None:
            raise NotAvailableError(
                str(PurePosixPath(path).parent), self._revision.label, f"lack {path}"
            )
        return content

    def of(self, result: Result) -> list[Result]:
        """The results of a row for each further seed; none if a seed lacks it or has another protocol."""
        found = [results.get(result.row) for results in self.results]
        same = [r for r in found if r is not None and r.protocol_hash == result.protocol_hash]
        return same if len(same) == len(self.results) else []

    def units(self) -> list[pd.DataFrame]:
        """The per-instance table of each further seed.

        Raises:
            NotAvailableError: one is missing.
            UserError: together they are too large.
        """
        found: list[pd.DataFrame] = []
        for folder in self._folders:
            path = f"{folder}/{seeds.INSTANCES}"
            found.append(units_frame(io.BytesIO(self._content(path)), path))
            self._check_rows(sum(map(len, found)))
        return found

    def _check_rows(self, rows: int) -> None:
        if rows > _MOST_ROWS:
            raise UserError(
                f"the tables of the further seeds have more than {_MOST_ROWS:,} rows together",
                file=f"{seeds.FOLDER} at {self._revision.label}",
                cure="compare a run of fewer seeds",
            )

    def matches(self, prompt_set: str, system: str) -> Sequence[Matches]:
        """The matches of a system for each further seed.

        Raises:
            NotAvailableError: they are missing.
            UserError: together they are too large.
        """
        found: list[Matches] = []
        for folder in self._folders:
            files = {n: io.BytesIO(self._content(f"{folder}/{n}")) for n in (MATCHES, TRUTH)}
            found.append(read_matches(files, prompt_set, system, folder))
            self._check_rows(sum(len(one.image) + len(one.truth.ids) for one in found))
        return found
