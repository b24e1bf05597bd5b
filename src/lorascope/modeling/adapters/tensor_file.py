"""Tensors on disk: safetensors, which holds numbers and nothing that could run."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from lorascope.atomic import new_file


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a file that appears under its name only when it is complete and on disk.

    Raises:
        OSError: it cannot be written; what was there before is as it was.
    """
    with new_file(path) as aside:
        try:
            save_file(dict(tensors), aside, metadata=dict(metadata))
        except SafetensorError as error:  # the tensors are sound: it is the disk
            raise OSError(str(error)) from error
