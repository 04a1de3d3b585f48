"""`TrainRun`: one training as one object, from the train stage through every launcher to the loop."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from hqsam.model.options import ModelOptions
from hqsam.training.options import TrainOptions
from hqsam_base.atomic import write_text
from hqsam_base.errors import UserError

VARIABLE = "HQSAM_TRAIN_RUN"


class TrainRun(BaseModel):
    """What to train, on what, how, and where to write it. As JSON it is the file of `hqsam.training.run`.

    Attributes:
        shards: folder of the shard stage.
        prompts: folder of the augment stage.
        model: the frozen base.
        options: the `train` section.
        out: folder to write.
        seed: initial weights, order of the views, loss points.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    shards: Path
    prompts: Path
    model: ModelOptions
    options: TrainOptions
    out: Path
    seed: int

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file, or, for the path `-`, what the environment holds as HQSAM_TRAIN_RUN.

        Raises:
            UserError: it is missing or does not fit.
        """
        try:
            return cls.model_validate_json(
                os.environ.get(VARIABLE, "") if str(path) == "-" else path.read_bytes()
            )
        except OSError as error:
            raise UserError(f"the file cannot be read: {error.strerror}", file=path) from error
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or None
            raise UserError(first["msg"], file=path, key=key, cure="correct it") from error

    def write(self, path: Path) -> None:
        """Write a file, atomically."""
        write_text(path, self.model_dump_json(indent=1))
