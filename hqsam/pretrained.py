"""Models of the ``transformers`` library from where a user has them: a local folder, or a pinned commit on the hub.

The one opener of promptable models (`hqsam.systems.transformers`) and detectors
(`hqsam.detector`). Code of the hub's is never run, and only safetensors are read.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hqsam_base.errors import UserError

PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Names under which the library has stored a processor; the second is that of versions before 5."""

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ELSEWHERE = frozenset(
    (
        "auto_map",
        "base_model_name_or_path",
        "checkpoint_path",
        "quantization_config",
        "transformers_weights",
    )
)
"""Settings by which a folder has the library open other files, or run code."""
_PLACES = frozenset(["architecture", "backbone"])
"""Settings that hold a model's name, or the place of another one, such as `hf-hub:OWNER/NAME`."""
_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model"]
"""Files of the hub's that are fetched: settings, weights, and words of tokenizers."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        model: A folder with config.json, safetensors and the processor's file; or a name on the hub.
        revision: The commit of a name on the hub, 40 hex digits: a branch can change.
        key: Of params.yaml, for messages.
        extra: The extra of this project that installs the library.
    """

    model: str
    revision: str | None
    key: str
    extra: str

    def checked(self) -> Path | None:
        """Check the source as far as that takes no network and no import of the library.

        Returns:
            The folder; None for a commit of the hub's.

        Raises:
            UserError: There is no such folder, the revision is no commit, or the library is not
                installed.
        """
        folder = Path(self.model).expanduser()
        if not folder.is_dir() and not _HUB_NAME.fullmatch(self.model):
            raise UserError(
                "there is no such folder, and it is no name on the hub",
                file=folder,
                key=self.key,
                cure="give a folder with config.json, or OWNER/NAME with a revision",
            )
        if not folder.is_dir() and not _COMMIT.fullmatch(self.revision or ""):
            raise UserError(
                f"{self.model}: the revision is {self.revision or 'not given'}",
                key=f"{self.key.rpartition('.')[0]}.revision",
                cure="give the commit as 40 hex digits (it stands on the model's page): a branch "
                "can change",
            )
        if importlib.util.find_spec("transformers") is None:
            raise self._lacking("transformers")
        return folder if folder.is_dir() else None

    def folder(self) -> Path:
        """Find the folder, downloading it from the hub if the model has a name there.

        Raises:
            UserError: See `checked`; or the hub cannot be reached.
        """
        if (folder := self.checked()) is not None:
            return folder
        from huggingface_hub import snapshot_download

        wanted: dict[str, Any] = {"repo_id": self.model, "revision": self.revision}
        try:
            return Path(snapshot_download(**wanted, allow_patterns=_WANTED))
        except Exception as error:  # the client raises what its HTTP library raises, too
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(
                f"{self.model} cannot be fetched from the hub, and the local cache does not "
                f"have it: {reason}",
                key=self.key,
                cure=f"on a machine with a network: `hf download {self.model} --revision "
                f"{self.revision} --local-dir DIR`, then give DIR",
            ) from error

    def library(self) -> Any:
        """Import the library, torchvision mended first.

        Raises:
            UserError: It is not installed.
        """
        from hqsam.model._torchvision import ensure_torchvision

        try:
            ensure_torchvision()
            import transformers
        except ImportError as error:
            raise self._lacking(str(error.name)) from error
        return transformers

    def _lacking(self, package: str) -> UserError:
        return UserError(
            f"the package {package} is not installed",
            key=self.key,
            cure=f"pip install 'hqsam-pipeline[{self.extra}]'",
        )

    @contextlib.contextmanager
    def opening(self) -> Iterator[None]:
        """Turn what the library raises about a model that it cannot open into one message; it prints nothing itself.

        All that is needed lies in the folder: what a file in it would fetch from the hub is refused.
        """
        library = self.library()
        from huggingface_hub import constants

        offline, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
        level = library.logging.get_verbosity()
        library.logging.set_verbosity_error()  # what it would report is checked by `check_whole`
        library.logging.disable_progress_bar()
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # a configuration of other types breaks the library anywhere
            said = next(iter(str(error).splitlines()), "")
            raise UserError(
                f"{self.model} cannot be opened ({said or type(error).__name__})",
                key=self.key,
                cure="give a folder with config.json, model.safetensors and the processor's file "
                "(`save_pretrained` of model and processor writes them)",
            ) from error
        finally:
            constants.HF_HUB_OFFLINE = offline
            library.logging.set_verbosity(level)
            library.logging.enable_progress_bar()

    def check_whole(self, loading: Mapping[str, Any]) -> None:
        """Refuse a model with missing weights: the library fills them with random numbers and only prints that it did.

        Args:
            loading: What ``from_pretrained`` says with ``output_loading_info``.
        """
        odd = {str(key[0]) for key in loading["mismatched_keys"]}
        if lost := sorted(set(loading["missing_keys"]) | odd):
            raise UserError(
                f"{len(lost)} weights of {self.model} are missing or of another shape, such as "
                f"{lost[0]}; they would be random",
                key=self.key,
                cure="use the files as published (a sam3_video model that was saved again has "
                "its names doubled)",
            )


def read_config(folder: Path, key: str) -> dict[str, Any]:
    """Read a model's ``config.json``.

    Raises:
        UserError: It is missing or no JSON object with a model type.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
        _ = str(config["model_type"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"this is no model folder of the transformers library ({type(error).__name__})",
            file=path,
            key=key,
            cure="give the folder that `save_pretrained` or `hf download` wrote",
        ) from error
    return cast(dict[str, Any], config)


def check_files(folder: Path, key: str) -> None:
    """Refuse a model's folder that leads the library elsewhere, to other files, code or the network.

    `trust_remote_code=False` stops the code that config.json itself names. Parts of a model are
    opened without the word: the library asks at the terminal whether their code may run.

    Args:
        folder: As somebody else packed it.
        key: Of params.yaml, for messages.

    Raises:
        UserError: Something in it is neither file nor folder (the library would wait for a pipe), or a
            file of settings names other code, weights, kernels or models, or cannot be read.
    """
    for path in sorted(folder.iterdir()):
        if not path.is_file() and not path.is_dir():
            raise UserError(
                "this is no regular file",
                file=path,
                key=key,
                cure="take it away: links that lead nowhere, pipes and devices are not read",
            )
    for path in [*folder.glob("*config*.json"), *folder.glob("*.safetensors.index.json")]:
        try:
            word = _leads_away(json.loads(path.read_bytes()), folder)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"this is no model folder of the transformers library ({type(error).__name__})",
                file=path,
                key=key,
                cure="give the folder that `save_pretrained` or `hf download` wrote",
            ) from error
        if word:
            raise UserError(
                f"`{word}` leads to code, weights or kernels outside the model's own safetensors",
                file=path,
                key=key,
                cure="use the files that `save_pretrained` writes for this model without "
                "adapters, quantization and code of its own",
            )


def _leads_away(settings: Any, folder: Path) -> str | None:
    """The first name in settings that would have the library open something else than the folder's safetensors."""
    parts = [settings]
    while parts:
        part = parts.pop()
        parts += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        for name, value in part.items() if isinstance(part, dict) else ():
            if name == "weight_map":
                shards = value.values() if isinstance(value, dict) else [value]
                known = {path.name for path in folder.glob("*.safetensors")}
                found = not set(map(str, shards)) <= known
            elif name in _PLACES:
                found = isinstance(value, str) and bool(set(value) & set("/:\\"))
            else:
                kernels = name.endswith("_implementation") and value not in ("eager", "sdpa")
                found = value is not None and (kernels or name in _ELSEWHERE)
            if found:
                return str(name)
    return None


def check_folder(
    folder: Path,
    key: str,
    *,
    known: Collection[str],
    refused: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Check that a folder holds a model of a known family with its weights and its processor.

    Args:
        folder: The folder.
        key: Of params.yaml, for messages.
        known: Model types that are supported.
        refused: Model types that look as if they fitted: why they do not, and what to do.

    Returns:
        The model type.

    Raises:
        UserError: The first thing that is wrong.
    """
    check_files(folder, key)
    model_type = str(read_config(folder, key)["model_type"])
    if model_type not in known:
        problem, cure = (refused or {}).get(
            model_type,
            (
                f"models of the type {model_type} are not supported",
                f"use one of the types {', '.join(known)}",
            ),
        )
        raise UserError(problem, file=folder / "config.json", key=key, cure=cure)
    if not any((folder / name).is_file() for name in PROCESSORS):
        raise UserError(
            "the model folder has no processor: size, mean and deviation of its images are unknown",
            file=folder / PROCESSORS[0],
            key=key,
            cure="copy processor_config.json (or preprocessor_config.json) from the model's page "
            "into the folder",
        )
    if not any(folder.glob("*.safetensors")):
        raise UserError(
            "the model folder has no weights as safetensors (files that need code to load are not "
            "read)",
            file=folder,
            key=key,
            cure="save the model with `save_pretrained`, which writes model.safetensors",
        )
    return model_type
