"""The order of the images: the same for any number of loader workers, resumed or not."""

import os
from collections.abc import Iterable, Iterator, Sized
from typing import NamedTuple

import numpy as np
import torch
from torch import distributed
from torch.utils.data import DistributedSampler

from ssdd_lightning.errors import InputError


class Draw(NamedTuple):
    """One look at a training image; augmentation is a function of the seed and these two numbers alone.

    Attributes:
        position: Of the image in its dataset.
        epoch: Epoch, from 0.
    """

    position: int
    epoch: int


def run_seed() -> int:
    """Seed of this run: what `seed_everything` was given, or else torch's own; 0 for several processes without one."""
    if "PL_GLOBAL_SEED" in os.environ:
        return int(os.environ["PL_GLOBAL_SEED"])
    return 0 if world()[1] > 1 else torch.initial_seed() % 2**63


def seed_for(*numbers: int) -> int:
    """Mix numbers, each at least 0, into one seed of 63 bits."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]) >> 1


class TrainSampler(DistributedSampler[Draw]):
    """Training images in an order that is a function of (seed, epoch) alone, in full batches.

    With several processes batch b of all of them together holds the images that one process with a batch as large as
    all of theirs would see. Lightning leaves a `DistributedSampler` as it is and tells it each epoch (`set_epoch`).

    Args:
        dataset: What is sampled.
        batch_size: Images per batch of one process.
        seed: Seed of the run.
        epoch: Epoch to begin with.
        done: Batches of that epoch that an interrupted run finished; they are left out, once.
    """

    def __init__(self, dataset: Sized, batch_size: int, seed: int, epoch: int = 0, done: int = 0) -> None:
        rank, processes = world()
        super().__init__(dataset, processes, rank, shuffle=True, seed=0)  # type: ignore[arg-type]
        self.run_seed = seed
        self.batch_size = batch_size
        self.epoch = epoch
        self._begun, self._done = epoch, done
        share = len(dataset) // processes
        self.num_samples = share - share % batch_size if share > batch_size else max(share, 1)
        self.total_size = self.num_samples * processes

    def __iter__(self) -> Iterator[Draw]:
        """Draws of this process in this epoch; in a loop that sets no epoch, the next call is the next epoch."""
        epoch, self.epoch = self.epoch, self.epoch + 1
        order = np.random.default_rng(np.random.SeedSequence((self.run_seed, epoch))).permutation(len(self.dataset))  # type: ignore[arg-type]
        order = np.resize(order, self.total_size)  # fewer images than processes: some are seen twice
        first = self._done * self.batch_size if epoch == self._begun else 0
        share = order[self.rank :: self.num_replicas][first:]
        return (Draw(int(position), epoch) for position in share)  # one at a time: there may be a million


class UnrepeatedSampler(DistributedSampler[int]):
    """Every image once, in one of the processes: the n-th goes to process n modulo their number.

    Torch's own sampler repeats images until all processes have equally many, so that some count twice in a score.
    Lightning leaves any `DistributedSampler` that a loader brings with it alone.

    Args:
        dataset: What is shared out.

    Raises:
        InputError: There are fewer images than processes, so that one of them would have nothing to do.
    """

    def __init__(self, dataset: Sized) -> None:
        rank, processes = world()
        super().__init__(dataset, processes, rank, shuffle=False)  # type: ignore[arg-type]
        count = len(dataset)
        if count < processes:
            raise InputError(
                f"expected at least one image per process, found {count} for {processes} processes; use fewer "
                "(`--trainer.devices`)."
            )
        self.total_size = count
        self.num_samples = len(range(rank, count, processes))


MOST_PIXELS = 2**20
"""Of the images of a batch together, so that several large photos take no more memory than one: four of 512 x 512."""


def like_sized(sizes: Iterable[tuple[int, int]], most: int) -> list[list[int]]:
    """Put whole images into batches of one size.

    Args:
        sizes: Height and width of each image.
        most: Images per batch at most; fewer where they have more than `MOST_PIXELS` together.

    Returns:
        Positions of the images of each batch, ascending; the batches are in the order of their first images.

    Examples:
        >>> like_sized([(48, 64), (64, 48), (48, 64), (48, 64)], most=2)
        [[0, 2], [1], [3]]
    """
    batches: list[list[int]] = []
    unfilled: dict[tuple[int, int], list[int]] = {}
    for position, size in enumerate(sizes):
        if size not in unfilled:
            unfilled[size] = []
            batches.append(unfilled[size])
        unfilled[size].append(position)
        if len(unfilled[size]) >= min(most, MOST_PIXELS // (size[0] * size[1])):
            del unfilled[size]
    return batches


def world() -> tuple[int, int]:
    """Rank of this process and number of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
