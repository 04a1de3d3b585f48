"""Opening detectors of the ``transformers`` library: a local folder, or a pinned commit on the hub.

Code of the hub's is never run, and only safetensors are read.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hqsam_base.errors import UserError


def pinned(model: str, revision: str | None, key: str) -> dict[str, str]:
    """Give the arguments of ``from_pretrained`` besides the model.

    Args:
        model: A folder, or a name on the hub.
        revision: Commit of the hub's repository.
        key: Of params.yaml, for messages.

    Raises:
        UserError: There is no such folder, and no commit: a name alone can mean other weights
            tomorrow; or the folder holds what is no file.
    """
    if Path(model).is_dir():
        check_files(Path(model), key)
        return {}
    if revision is None:
        raise UserError(
            f"there is no folder {model}, and a name on the hub needs its commit",
            key=key,
            cure="correct the path, or add `revision` beside it",
        )
    return {"revision": revision}


def check_files(folder: Path, key: str) -> None:
    """Refuse a model's folder in which something is neither file nor folder: the library would wait for a pipe.

    Args:
        folder: As somebody else packed it.
        key: Of params.yaml, for messages.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_file() and not path.is_dir():
            raise UserError(
                "this is no regular file",
                file=path,
                key=key,
                cure="take it away: links that lead nowhere, pipes and devices are not read",
            )


def library(what: str, extra: str) -> Any:
    """Import the library.

    Args:
        what: What needs it, for the message.
        extra: The extra of this project that installs it.

    Raises:
        UserError: It is not installed.
    """
    try:
        from hqsam.model._torchvision import ensure_torchvision

        ensure_torchvision()
        import transformers
    except ImportError as error:
        raise UserError(
            f"{what} need the module {error.name!r}",
            cure=f"pip install 'hqsam-pipeline[{extra}]'",
        ) from error
    return transformers


@contextlib.contextmanager
def opening(model: str, key: str) -> Iterator[None]:
    """Turn what the library raises about a model that it cannot open into one message."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a configuration of other types breaks the library anywhere
        said = next(iter(str(error).splitlines()), "")
        raise UserError(
            f"{model} cannot be opened ({said or type(error).__name__})",
            key=key,
            cure="give a folder with config.json, model.safetensors and the processor's file "
            "(`save_pretrained` of model and processor writes them), or go online once",
        ) from error


def check_whole(loading: Mapping[str, Any], model: str, key: str) -> None:
    """Refuse a model with missing weights: the library fills them with random numbers and only prints that it did.

    Args:
        loading: What ``from_pretrained`` says with ``output_loading_info``.
        model: Folder or name, for the message.
        key: Of params.yaml.
    """
    lost = sorted(set(loading["missing_keys"]) | {str(k[0]) for k in loading["mismatched_keys"]})
    if lost:
        raise UserError(
            f"{len(lost)} weights of {model} are missing or of another shape, such as {lost[0]}",
            key=key,
            cure="save the model again, or download it again",
        )
