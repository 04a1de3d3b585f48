"""Reads tensors from files and folders: safetensors, ``torch.save``, indexed shards, trainers' wrappers.

``checkpoint`` detects what the tensors are; this module only reads them, under the names that a bare
``state_dict`` has.
"""

from __future__ import annotations

import _codecs
import argparse
import contextlib
import importlib
import json
import pathlib
import pickle
import pickletools
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from hqsam_base.errors import UserError
from hqsam_base.filenames import visible
from hqsam_base.texts import packing

State = dict[str, Tensor]

_LONGEST_NAME = 1000  # characters
_PICKLES = 5  # that a file of before torch 1.6 begins with
# What the standard library raises on damaged zips and pickles: names that are no UTF-8, for one.
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    LookupError,
)
METADATA_KEY = "hqsam"  # one key only: safetensors writes several in random order
_IN_FOLDERS = (
    "hq_head.safetensors",  # of the train stage
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",  # of transformers
)
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".ckpt")
_INDEX = ".index.json"
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_WRAPPERS = ("model", "state_dict", "model_state_dict", "model_state")
# Segments that DataParallel, torch.compile, FSDP and activation checkpointing put before the names
# of what they wrap.
_WRAPPED = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_PARTS = ("image_encoder.", "vision_encoder.", "prompt_encoder.")
_OWN = ("sam.", "head.")  # of HQSam
_ALONE = ("mask_tokens.weight", "hf_token.weight")  # a decoder, a head
_COLOURS = {"pixel_mean": (123.675, 116.28, 103.53), "pixel_std": (58.395, 57.12, 57.375)}

_REFUSED = re.compile(r"GLOBAL (\S+)")


def weights_file(path: Path) -> Path:
    """Find the weights: the file itself, or those in a folder of the train stage or of transformers.

    Returns:
        A file of weights, or the index (``*.index.json``) of several.

    Raises:
        UserError: A folder without them or with several, or one shard of several.
    """
    if path.is_dir():
        for name in _IN_FOLDERS:
            if (path / name).is_file():
                return path / name
        inside = visible(path.iterdir())
        others = [file for file in inside if file.suffix in _SUFFIXES and file.is_file()]
        if len(others) == 1:
            return others[0]
        found = (
            f"several ({', '.join(file.name for file in others[:4])})"
            if others
            else f"none of {', '.join(_IN_FOLDERS)}"
        )
        below = [one for one in inside if any((one / name).is_file() for name in _IN_FOLDERS)]
        cure = (
            f"give one of its folders, such as {below[-1]}" if below else "give a checkpoint file"
        )
        raise UserError(f"the folder holds {found}", file=path, cure=cure)
    if _SHARD.search(path.name) and path.is_file():
        raise UserError(
            "this is one part of a checkpoint in several",
            file=path,
            cure=f"give the folder, {path.parent}",
        )
    return path


def files_of(path: Path) -> list[Path]:
    """The files that hold the weights: the parts that an index names, sorted, or the file itself.

    Raises:
        UserError: The index is not an index, or a part is missing.
    """
    if not path.name.endswith(_INDEX):
        return [path]
    try:
        names = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            "the file is not an index of a checkpoint in parts", file=path, cure="copy it again"
        ) from error
    parts = [path.parent / str(name) for name in names]
    for part in parts:
        if part.parent != path.parent or not part.is_file():
            raise UserError(
                f"the part {part.name} is missing", file=path, cure="copy the whole folder again"
            )
    return parts


def read_tensors(path: Path) -> tuple[State, dict[str, Any]]:
    """Read all tensors and what this project noted beside them.

    Args:
        path: Of ``weights_file``; read without executing code.

    Returns:
        The tensors under the names that the bare model's ``state_dict`` has, and the note.

    Raises:
        UserError: Unreadable, with an object that needs code to load, or without tensors.
    """
    parts = [_read_part(part) for part in files_of(path)]
    merged = {key: value for found, _ in parts for key, value in found.items()}
    note = parts[0][1]
    return (merged, note) if note.get("format") == "hq_head" else (_bare(merged, path), note)


def _read_part(path: Path) -> tuple[State, dict[str, Any]]:
    try:
        with path.open("rb") as opened:
            head = opened.read(9)
        # By the name, as torch does, or by the content: eight bytes of length, then JSON.
        if path.suffix == ".safetensors" or head[8:] == b"{":
            with safe_open(path, framework="pt") as file:
                note = json.loads((file.metadata() or {}).get(METADATA_KEY, "{}"))
            if not isinstance(note, dict):
                raise ValueError(f"its note {METADATA_KEY!r} is not a JSON object")
            return load_file(path), note
        _check_names(path)
        with torch.serialization.safe_globals(_safe()):
            return _unwrapped(path, torch.load(path, map_location="cpu", weights_only=True)), {}
    except UserError:
        raise
    except pickle.UnpicklingError as error:
        raise _refusal(path, error) from error
    except Exception as error:  # on damaged bytes the unpickler raises almost anything
        if "TorchScript" in str(error):
            cure = "give the state_dict() of the model that it was scripted from"
            raise UserError(
                "the file is a TorchScript program, not a checkpoint", file=path, cure=cure
            ) from error
        if zipfile.is_zipfile(path) and not _is_of_torch(path):
            raise UserError(
                "the file is a zip, not a checkpoint", file=path, cure="unpack it (zip)"
            ) from error
        raise UserError(
            f"the file is not a readable checkpoint ({type(error).__name__}: "
            f"{str(error).partition(chr(10))[0][:160]})",
            file=path,
            cure="download or copy it again",
        ) from error


def _check_names(path: Path) -> None:
    """Refuse a pickle with an endless name of a class: torch's message about it takes time by the square of its length."""
    with contextlib.ExitStack() as stack, contextlib.suppress(*_DAMAGE):
        file: IO[bytes] = stack.enter_context(path.open("rb"))
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            [member] = (name for name in archive.namelist() if name.endswith("/data.pkl"))
            file = stack.enter_context(archive.open(member))
        for _ in range(_PICKLES):
            for code, value, _place in pickletools.genops(file):
                name = str(value)
                if code.name == "GLOBAL" and len(name) > _LONGEST_NAME:
                    raise UserError(
                        f"the file is not a readable checkpoint: it names a class with {len(name)} "
                        f"characters",
                        file=path,
                        cure="download or copy it again",
                    )


def _safe() -> list[Any]:
    """What trainers put beside the weights and what runs no code of the file's when it is made."""
    arrays = [
        getattr(importlib.import_module("numpy._core.multiarray"), name)
        for name in ("scalar", "_reconstruct")
    ]
    before_numpy_2 = [
        (function, f"numpy.core.multiarray.{function.__name__}") for function in arrays
    ]
    kinds = [getattr(np.dtypes, name) for name in np.dtypes.__all__]
    paths = [pathlib.PosixPath, pathlib.PurePosixPath]
    return [
        argparse.Namespace,
        *paths,
        _codecs.encode,
        np.dtype,
        np.ndarray,
        *arrays,
        *before_numpy_2,
        *kinds,
    ]


def _refusal(path: Path, error: Exception) -> UserError:
    named = _REFUSED.search(str(error))
    if named is None:
        problem, kind = "the file is not a readable checkpoint: not of torch.save", packing(path)
        return UserError(
            problem, file=path, cure=f"unpack it ({kind})" if kind else "download it again"
        )
    return UserError(
        f"the file is not a readable checkpoint: it holds a {named[1]}, which needs code to load",
        file=path,
        cure="save the state_dict() alone, where you have that code; files that need code to load "
        "are refused",
    )


def _is_of_torch(path: Path) -> bool:
    """Whether a zip is one of ``torch.save``: its pickle lies in one folder with the tensors."""
    with contextlib.suppress(*_DAMAGE), zipfile.ZipFile(path) as file:
        return any(name.endswith("/data.pkl") for name in file.namelist())
    return False


def _unwrapped(path: Path, found: Any) -> State:
    """The tensors of ``{"model": {...}, "epoch": 3}`` and the like."""
    while isinstance(found, dict) and (inner := _inner(path, found)) is not None:
        found = inner
    given = found.items() if isinstance(found, dict) else ()
    tensors = {key: value for key, value in given if isinstance(value, Tensor)}
    # Arrays of NumPy, as some converters leave them, count where there is no tensor.
    arrays = [(k, v) for k, v in given if isinstance(v, np.ndarray) and v.dtype.kind in "fiu"]
    tensors = tensors or {key: torch.as_tensor(value) for key, value in arrays}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise UserError(
            "the file holds no dictionary of tensors", file=path, cure="give a state dict"
        )
    # A number beside the weights, such as the step, is not a parameter, even where it was saved as a
    # tensor.
    return {key: value for key, value in tensors.items() if value.ndim or "." in key}


def _inner(path: Path, found: Mapping[Any, Any]) -> Mapping[Any, Any] | None:
    """The dictionary inside that holds the weights, if there is one."""
    for name in _WRAPPERS:
        if isinstance(found.get(name), dict):
            inner: Mapping[Any, Any] = found[name]
            return inner
    if any(isinstance(value, Tensor) and value.ndim for value in found.values()):
        return None
    inside = {
        name: value
        for name, value in found.items()
        if isinstance(value, dict)
        and any(isinstance(key, str) and isinstance(one, Tensor) for key, one in value.items())
    }
    if len(inside) > 1:
        problem = f"the file holds several dictionaries of tensors: {', '.join(map(str, inside))}"
        raise UserError(problem, file=path, cure="save the one that you want as a file of its own")
    return next(iter(inside.values()), None)


def _bare(state: State, path: Path) -> State:
    """The names without what trainers and wrappers put before them, and without SAM's constants."""
    names = {
        key: ".".join(part for part in key.split(".") if part not in _WRAPPED) for key in state
    }
    while not _known(names.values()) and (prefix := _shared_prefix(names.values())):
        names = {key: name.removeprefix(prefix) for key, name in names.items()}
    if not _known(names.values()):
        # A prefixed SAM beside other tensors (a loss, another model): the choice is ambiguous.
        below: dict[str, set[str]] = {}
        for name in names.values():
            prefix, dot, rest = name.partition(".")
            below.setdefault(prefix + dot, set()).add(rest)
        if sams := sorted(prefix for prefix, inside in below.items() if _known(inside)):
            problem = (
                f"a SAM lies below {', '.join(sams)} beside tensors below "
                f"{', '.join(sorted(set(below) - set(sams))[:4]) or 'it'}"
            )
            cure = f"save the tensors below {sams[0]} alone, without that prefix"
            raise UserError(problem, file=path, cure=cure)
        return state
    bare = {names[key]: value for key, value in state.items()}
    if len(bare) != len(state):
        raise UserError(
            "two tensors have the same name but for wrappers of it",
            file=path,
            cure="save a state dict of one model",
        )
    _check_colours(bare, path)
    return {key: value for key, value in bare.items() if key.rpartition(".")[2] not in _COLOURS}


def _known(names: Any) -> bool:
    """Whether these are names of a SAM, an HQ-SAM, a part of one, or an ``HQSam``."""
    names = set(names)
    inside = any(name.startswith(_PARTS) or name in _ALONE for name in names)
    return inside or {name.partition(".")[0] + "." for name in names} == set(_OWN)


def _shared_prefix(names: Any) -> str:
    """The first segment of all names, with its dot; empty if they do not share one."""
    first = {name.partition(".")[0] + "." if "." in name else "" for name in names}
    return first.pop() if len(first) == 1 else ""


def _check_colours(state: State, path: Path) -> None:
    """Check that colour constants, if present, are SAM's, for pixels of 0..255 or 0..1."""
    for key, value in state.items():
        known = _COLOURS.get(key.rpartition(".")[2])
        if known is None:
            continue
        found, sam = value.flatten().double(), torch.tensor(known, dtype=torch.float64)
        if found.numel() == 3 and any(
            torch.allclose(found * scale, sam, rtol=5e-3) for scale in (1.0, 255.0)
        ):
            continue
        raise UserError(
            f"{key} is {[round(v, 4) for v in found.tolist()[:4]]}, SAM's is {list(known)}",
            file=path,
            key=key,
            cure="train with SAM's normalisation of colours",
        )
