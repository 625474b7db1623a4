"""Where a network or a CRF runs."""

import torch

from ssdd_lightning.errors import InputError


def find_device(name: str) -> torch.device:
    """Find a device: auto (a GPU if there is one), cpu, cuda, cuda:1, ...

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"cannot run on device {name!r} ({str(error).splitlines()[0]}).") from error
