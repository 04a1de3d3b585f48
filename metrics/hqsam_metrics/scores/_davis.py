"""DAVIS 2017, semi-supervised: sequences of label maps, objects, J&F."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hqsam_base.errors import UserError
from hqsam_base.filenames import AmbiguousNameError, meant, visible
from hqsam_base.processes import run_parts
from hqsam_base.progress import Progress, silent
from hqsam_base.texts import read_names
from hqsam_metrics.masks.jf import Statistics, region_and_contour, statistics

Labels = NDArray[np.uint8]
VOID = 255


@dataclass(frozen=True)
class ObjectScore:
    """One object of one sequence.

    Attributes:
        sequence: its sequence.
        object: its number.
        frames: names of the evaluated frames.
        j: float64 [frames].
        f: float64 [frames].
        shown: whether it is in the ground truth's first frame; a number below the highest counts
            even if it is not.
    """

    sequence: str
    object: int
    frames: tuple[str, ...]
    j: NDArray[np.float64]
    f: NDArray[np.float64]
    shown: bool = True

    @property
    def j_stats(self) -> Statistics:
        """Mean, recall and decay of J."""
        return statistics(self.j)

    @property
    def f_stats(self) -> Statistics:
        """Mean, recall and decay of F."""
        return statistics(self.f)


def score_sequence(
    sequence: str,
    frames: Sequence[str],
    *,
    pred: Callable[[int], Labels],
    target: Callable[[int], Labels],
) -> list[ObjectScore]:
    """Scores one sequence by the semi-supervised rule.

    The first and the last frame are left out. Objects are 1..highest number in the ground truth's
    first frame; one that comes up later is not evaluated. Void (255) in the ground truth counts as
    background.

    Args:
        sequence: its name.
        frames: names of all frames in order.
        pred: returns the label map uint8 [H, W] of the n-th frame.
        target: the same for the ground truth.

    Returns:
        One score an object.

    Raises:
        UserError: fewer than three frames, a first frame of nothing but void, label maps of
            different sizes, more objects than the ground truth has.
    """
    if len(frames) < 3:
        raise UserError(
            f"sequence {sequence}: has {len(frames)} frames; the first and the last do not count"
        )
    first = target(0)
    n_objects = int(first[first != VOID].max(initial=0))
    if not n_objects and (first == VOID).any():
        raise UserError(
            f"sequence {sequence}, frame {frames[0]}: the ground truth has no object, only 0 and "
            f"255, and 255 is void in"
            " DAVIS 2017. These look like the annotations of DAVIS 2016, one object a sequence: "
            "take the 2017 files, or"
            " write the object as 1 (in the results, too)"
        )
    values = np.zeros((2, n_objects, len(frames) - 2))
    for at in range(1, len(frames) - 1):
        real, found = target(at), pred(at)
        if found.shape != real.shape:
            raise UserError(
                f"sequence {sequence}, frame {frames[at]}: the result is {found.shape[0]} x "
                f"{found.shape[1]}, the ground truth {real.shape[0]} x {real.shape[1]} "
                f"(height x width); results are never resized"
            )
        if n_objects == 0 and found.any():
            raise UserError(
                f"sequence {sequence}: the ground truth's first frame has no object, and the result "
                f"has one in frame {frames[at]}; is it the ground truth of this split?"
            )
        if int(found.max(initial=0)) > n_objects:
            raise UserError(
                f"sequence {sequence}, frame {frames[at]}: the result has object "
                f"{int(found.max())}, the ground truth's first frame only {n_objects}; is it a "
                f"palette picture with object numbers?"
            )
        for k in range(n_objects):
            values[:, k, at - 1] = region_and_contour(pred=found == k + 1, target=real == k + 1)
    names = tuple(frames[1:-1])
    return [
        ObjectScore(
            sequence, k + 1, names, values[0, k], values[1, k], bool((first == k + 1).any())
        )
        for k in range(n_objects)
    ]


@dataclass(frozen=True)
class DavisSequence:
    """A sequence of a split: its name, and its ground-truth and result pictures, [frames] each.

    The results of the first and the last frame, which do not count, need not be there: None.
    """

    name: str
    target: tuple[Path, ...]
    pred: tuple[Path | None, ...]

    @property
    def frames(self) -> tuple[str, ...]:
        """The names of the frames."""
        return tuple(path.stem for path in self.target)


def find_sequences(pred: Path, root: Path, split: str = "val") -> list[DavisSequence]:
    """Lists sequences and frames, and checks that every result picture is there.

    A list may name a sequence more than once: it counts once. Frames are in the order of their file
    names.

    Args:
        pred: results, `<pred>/<sequence>/<frame>.png`.
        root: the folder with `Annotations/480p` and `ImageSets/2017`.
        split: name of the list of sequences, one a line.

    Raises:
        UserError: a missing list, sequence or frame.
    """
    listing = root / "ImageSets" / "2017" / f"{split}.txt"
    if not listing.is_file():
        raise UserError(
            f"{listing}: no such file; --gt must be the DAVIS folder, --split one of its lists"
        )
    if not pred.is_dir():
        raise UserError(f"{pred}: no such folder of results")
    names = dict.fromkeys(read_names(listing))
    if not names:
        raise UserError(f"{listing}: names no sequence")
    return [_sequence(name, root / "Annotations" / "480p", pred, listing) for name in names]


def _sequence(name: str, annotations: Path, pred: Path, listing: Path) -> DavisSequence:
    try:
        folder, results = meant(annotations, name), meant(pred, name)
    except AmbiguousNameError as error:
        raise UserError(f"{listing}: sequence {name}: {error}") from None
    inside = visible(folder.iterdir()) if folder is not None and folder.is_dir() else []
    files = [path for path in inside if path.suffix.lower() == ".png"]
    if not files:
        raise UserError(
            f"{annotations / name}: no ground truth pictures for this sequence of {listing.name}"
        )
    found = [None if results is None else meant(results, file.name) for file in files]
    missing = [
        file.name for file, there in zip(files[1:-1], found[1:-1], strict=True) if there is None
    ]
    if missing:
        there = visible((pred if results is None else results).iterdir())
        holds = f"{there[0].parent} holds {there[0].name}, ..." if there else "the folder is empty"
        raise UserError(
            f"{pred / name / missing[0]}: no such result ({len(missing)} frames of {name} missing);"
            f" every frame but the first and the last must be there; {holds}"
        )
    return DavisSequence(name, tuple(files), tuple(found))


def _score_folder(sequences: Sequence[DavisSequence], number: int) -> list[ObjectScore]:
    from hqsam_metrics.masks.png import read_index_png

    one = sequences[number]

    def found(at: int) -> Labels:
        path = one.pred[at]
        assert path is not None  # every frame that counts is there
        return read_index_png(path)

    return score_sequence(
        one.name, one.frames, pred=found, target=lambda at: read_index_png(one.target[at])
    )


def score_folders(
    sequences: Sequence[DavisSequence], *, workers: int = 1, progress: Progress = silent
) -> list[ObjectScore]:
    """Scores all sequences, in the order of the split's list; `workers` processes change no number."""
    total = len(sequences)
    parts = run_parts(
        _score_folder,
        sequences,
        total,
        workers=workers,
        progress=progress,
        what="scoring sequences",
    )
    return [score for part in parts for score in part]


def check_objects(scores: Sequence[ObjectScore], where: Path) -> None:
    """Checks that something was scored; UserError for a ground truth without any object."""
    if not scores:
        raise UserError(
            f"{where}: no sequence has an object in its first annotated frame: there is nothing "
            f"to score"
        )


def gap_warnings(scores: Sequence[ObjectScore]) -> list[str]:
    """Warns of object numbers that the first frames do not show."""
    gaps = sum(not score.shown for score in scores)
    if not gaps:
        return []
    return [
        f"{gaps} of {len(scores)} objects are numbers that their sequence's first frame does not "
        "show: every number up to the highest counts, as in the official program, and with J = F = 1 "
        "where the result has it neither. Were palette pictures converted to grey?"
    ]


def global_metrics(scores: Sequence[ObjectScore]) -> dict[str, float | None]:
    """Returns the means over all objects: `J&F J F` and recall and decay of both; None without objects."""
    names = ("J&F", "J", "F", "J_recall", "J_decay", "F_recall", "F_decay")
    if not scores:
        return dict.fromkeys(names)
    j = np.array([(s.j_stats.mean, s.j_stats.recall, s.j_stats.decay) for s in scores]).mean(axis=0)
    f = np.array([(s.f_stats.mean, s.f_stats.recall, s.f_stats.decay) for s in scores]).mean(axis=0)
    values = ((j[0] + f[0]) / 2, j[0], f[0], j[1], j[2], f[1], f[2])
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def per_object(scores: Sequence[ObjectScore]) -> list[dict[str, Any]]:
    """Returns one row an object, as `score davis` writes it."""
    out = []
    for score in scores:
        row: dict[str, Any] = {"sequence": score.sequence, "object": score.object}
        for letter, stats in (("J", score.j_stats), ("F", score.f_stats)):
            row |= {f"{letter}_{key}": value for key, value in vars(stats).items()}
        out.append(row)
    return out
