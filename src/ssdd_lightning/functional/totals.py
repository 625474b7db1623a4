"""Sums over all processes of a run, by which losses become those of the global batch.

A loss that is a mean over the pixels of a class, or over the images that are kept, is not the mean of the same loss in
every process: each process has other counts. With the counts of all processes it is, and distributed training takes the
steps of one process with the whole batch.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Total = Callable[[Tensor], Tensor]
"""Sums a tensor of counts over the processes whose gradients are averaged."""


def own(counts: Tensor) -> Tensor:
    """The counts of this process alone.

    Args:
        counts: of any shape and dtype.

    Returns:
        The same tensor.

    Examples:
        >>> own(torch.tensor([3, 1]))
        tensor([3, 1])
    """
    return counts


def over_processes(counts: Tensor) -> Tensor:
    """The counts of all processes of torch.distributed; every process must call it.

    Args:
        counts: of any shape and dtype, the same in every process.

    Returns:
        A new tensor; the counts themselves if there is one process.

    Examples:
        >>> over_processes(torch.tensor([3, 1]))  # in one process
        tensor([3, 1])
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return counts
    counts = counts.detach().clone()
    torch.distributed.all_reduce(counts)
    return counts


def with_processes(total: Total, counts: Tensor) -> tuple[Tensor, Tensor]:
    """The total of counts, and how many processes it is over, in one exchange.

    Args:
        total: sums them.
        counts: of any shape and dtype.

    Returns:
        The total, of the counts' shape, and a scalar.

    Examples:
        >>> with_processes(own, torch.tensor([3, 1]))
        (tensor([3, 1]), tensor(1))
    """
    summed = total(torch.cat((counts.flatten(), counts.new_ones(1))))
    return summed[:-1].view(counts.shape), summed[-1]
