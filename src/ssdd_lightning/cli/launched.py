"""Commands that work on files, in several processes that torchrun or srun started: each makes its share."""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from datetime import timedelta
from pathlib import Path
from typing import Any

from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.team import ALONE, Team

_FAILED, _ENDS, _LEFT = "failed", "ends", "left"
"""What the store holds: what failed, that process 0 ends, how many need the store no longer."""
_FIRST_PORT, _PORTS = 15_000, 20_000
_MEETING = timedelta(minutes=5)
"""How long process 0 waits for the others to start."""
_LEAVING = 10.0
"""Seconds that it waits for them to hear how it ended."""
_SAYING = 1.0
"""Seconds that process 0 gets to say what failed."""
_PAUSE = 0.05


class LaunchedTeam(Team):
    """The processes of one launch. They meet at a store that the first of them, or torchrun, serves.

    Args:
        rank: Number of this process.
        size: Number of processes.
        neighbours: Those of them on this machine.
        address: Name and port of the store.
        serves: Whether this process serves it.

    Raises:
        InputError: The others do not come, or the port is taken.
    """

    def __init__(self, rank: int, size: int, neighbours: int, address: tuple[str, int], serves: bool) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        self.rank, self.size, self.neighbours = rank, size, neighbours
        self._turn = 0
        try:
            store = TCPStore(*address, None, serves, _MEETING)
            attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
            self._store: Any = PrefixStore(f"ssdd {attempt}", store)
            self.gather(None)
        except RuntimeError as error:
            raise InputError(
                f"process {rank} of {size} cannot meet the others at {address[0]}:{address[1]} "
                f"({str(error).splitlines()[0]:.200}); start all of them, or start one without a launcher."
            ) from error

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Wait for every process, and return the value of each; see `Team`."""
        self._turn += 1
        keys = [f"{self._turn} {rank}" for rank in range(self.size)]
        with self._asking():
            self._store.set(keys[self.rank], json.dumps(value))
            while not self._store.check(keys):
                self._stop_if_another_failed()
                time.sleep(_PAUSE)
            return [json.loads(self._store.get(key)) for key in keys]

    def check(self) -> None:
        """Stop if another process failed; see `Team`."""
        with self._asking():
            self._stop_if_another_failed()

    def leave(self, failed: str | None) -> None:
        """Tell the others how the work of this process ended.

        The store is there until nobody needs it. If a process failed, process 0 gets the time to say so: torchrun ends
        all processes when one has ended.
        """
        try:
            if failed is not None and not self._store.check([_FAILED]):
                self._store.set(_FAILED, f"process {self.rank}: {failed}")
            if not self.rank:
                self._store.set(_ENDS, "")
            elif failed is not None:
                self._wait(lambda: self._store.check([_ENDS]))
            self._store.add(_LEFT, 1)
            if not self.rank:
                self._wait(lambda: self._store.add(_LEFT, 0) >= self.size)
            elif failed is not None:
                time.sleep(_SAYING)
        except RuntimeError:
            pass  # nobody serves the store any more

    @staticmethod
    def _wait(ended: Callable[[], object]) -> None:
        until = time.monotonic() + _LEAVING
        while not ended() and time.monotonic() < until:
            time.sleep(_PAUSE)

    def _stop_if_another_failed(self) -> None:
        if self._store.check([_FAILED]):
            raise InputError(self._store.get(_FAILED).decode())

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # DistNetworkError and its kin
            raise InputError("process 0 has ended, so the others cannot finish; run the same command again.") from error


@contextmanager
def launched(environment: Mapping[str, str] = os.environ) -> Iterator[Team]:
    """Join the processes of this command that a launcher started, if one did.

    Only process 0 says anything, and what fails in one process ends all.

    Args:
        environment: The variables of torchrun, or of SLURM's srun.

    Raises:
        InputError: The processes do not find each other, or the work failed in one of them.
    """
    if "RANK" in environment and int(environment.get("WORLD_SIZE", "1")) > 1:
        team = _of_torchrun(environment)
    elif int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        team = _of_srun(environment)
    else:
        yield ALONE
        return
    failed: str | None = None
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere) if team.rank else nullcontext():
            yield team
            team.gather(None)
    except InputError as error:
        failed = str(error)
        if team.rank:
            raise SystemExit(2) from error  # process 0 says it
        raise
    except BaseException as error:
        failed = str(error) or type(error).__name__
        raise
    finally:
        team.leave(failed)


def _of_torchrun(environment: Mapping[str, str]) -> LaunchedTeam:
    rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    address = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
    serves = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    return LaunchedTeam(rank, size, int(environment.get("LOCAL_WORLD_SIZE", "1")), address, serves)


def _of_srun(environment: Mapping[str, str]) -> LaunchedTeam:
    from lightning_fabric.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

    rank, size = int(environment["SLURM_PROCID"]), int(environment["SLURM_STEP_NUM_TASKS"])
    host = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(environment["SLURM_NODELIST"])
    step = int(environment["SLURM_JOB_ID"]) * 31 + int(environment.get("SLURM_STEP_ID", "0"))
    port = int(environment.get("MASTER_PORT", _FIRST_PORT + step % _PORTS))
    # SLURM binds each task to its own cores
    return LaunchedTeam(rank, size, 1, (host, port), rank == 0)
