"""Which images are whose, where several processes score or predict a dataset."""

from collections.abc import Sized

from torch import distributed
from torch.utils.data import DistributedSampler

from ssdd_lightning.errors import InputError


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
        super().__init__(dataset, shuffle=False)  # type: ignore[arg-type]
        count = len(dataset)
        if count < self.num_replicas:
            raise InputError(
                f"expected at least one image a process, found {count} for {self.num_replicas} processes; use fewer "
                "(`--trainer.devices`)."
            )
        self.total_size = count
        self.num_samples = len(range(self.rank, count, self.num_replicas))


def own_share(dataset: Sized) -> UnrepeatedSampler | None:
    """Return the sampler of this process's images; None where there is only one process."""
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    return UnrepeatedSampler(dataset) if several else None
