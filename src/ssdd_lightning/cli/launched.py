"""Commands that work on files, in several processes that torchrun or srun started: each makes its share."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from ssdd_lightning.errors import InputError, Interrupted
from ssdd_lightning.storage.team import ALONE, Team

_FAILED, _ENDS, _LEFT = "failed", "ends", "left"
"""What the store holds: what failed, that process 0 ends, how many need the store no longer."""
_FIRST_PORT, _PORTS = 15_000, 20_000
_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PART = 1 << 22
"""Characters of a value in the store, which takes 8 MiB."""
_MEETING = 300.0
"""Seconds that a process waits for the others to start."""
_BEAT, _SILENCE = 5.0, 60.0
"""Seconds between two signs of life, and without one until a process counts as dead."""
_LEAVING = 10.0
"""Seconds that a process waits for process 0 to hear how it ended, and the other way round."""
_SAYING = 1.0
"""Seconds that process 0 gets to say what failed."""
_PAUSE = 0.05


@dataclass(frozen=True)
class Launch:
    """What a launcher says of a process.

    Args:
        rank: Number of this process.
        size: Number of processes.
        neighbours: Those of them on this machine.
        address: Name and port of the store where they meet.
        serves: Whether this process serves the store; torchrun may do it.
        name: What tells this launch from others that meet at the same address.
        variables: Those of the environment that make the process one of several.
    """

    rank: int
    size: int
    neighbours: int
    address: tuple[str, int]
    serves: bool
    name: str
    variables: str


class LaunchedTeam(Team):
    """The processes of one launch, which meet at a store.

    Args:
        launch: What the launcher says of this process.

    Raises:
        InputError: The others do not come, or were started with another command; or the port is taken.
    """

    def __init__(self, launch: Launch) -> None:
        from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

        self.rank, self.size, self.neighbours = launch.rank, launch.size, launch.neighbours
        self._turn, self._until = 0, time.monotonic() + _MEETING
        self._pulse = 0
        self._beats = {rank: (0, 0) for rank in range(self.size) if rank != self.rank}
        self._asked = time.monotonic()
        self._over = threading.Event()

        def connected(serves: bool) -> Any:  # noqa: ANN401
            """Another connection to the store, for one thread."""
            return TCPStore(*launch.address, None, serves, timedelta(seconds=_MEETING))

        try:
            store = connected(launch.serves)
            # torchrun's store outlives a command: the next one of the same launch must not read its values
            number = store.add(f"{launch.name} commands of {self.rank}", 1)
            prefix = f"{launch.name} {number}"
            self._store: Any = PrefixStore(prefix, store)
            self._life: Any = PrefixStore(prefix, connected(False))
        except RuntimeError as error:
            raise InputError(self._alone(launch, str(error).splitlines()[0][:200])) from error
        self._beat()
        threading.Thread(target=self._live, daemon=True).start()
        try:
            words = self.gather(_deciding(sys.argv[1:]))
        except TimeoutError as error:
            self._over.set()
            raise InputError(self._alone(launch, f"waited for {_MEETING:.0f} s")) from error
        if other := next((rank for rank, theirs in enumerate(words) if theirs != words[0]), None):
            self._over.set()
            raise InputError(
                f"all processes of a launch must run the same command: process 0 has {' '.join(words[0])!r}, "
                f"process {other} has {' '.join(words[other])!r}."
            )
        self._until = float("inf")

    @staticmethod
    def _alone(launch: Launch, why: str) -> str:
        return (
            f"process {launch.rank} of {launch.size} cannot meet the others at {launch.address[0]}:{launch.address[1]} "
            f"({why}); start all of them with the same command, or unset {launch.variables} to work alone."
        )

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Wait for every process, and return the value of each; see `Team`."""
        self._turn += 1
        keys = [f"{self._turn} {rank}" for rank in range(self.size)]
        with self._asking():
            text = json.dumps(value)
            parts = [text[start : start + _PART] for start in range(0, len(text), _PART)]
            for number, part in enumerate(parts):
                self._store.set(f"{keys[self.rank]} {number}", part)
            self._store.set(keys[self.rank], str(len(parts)))
            while not self._store.check(keys):
                self._stop_if_another_failed()
                if time.monotonic() > self._until:
                    raise TimeoutError
                time.sleep(_PAUSE)
            return [json.loads(self._taken(key)) for key in keys]

    def _taken(self, key: str) -> str:
        return "".join(self._store.get(f"{key} {number}").decode() for number in range(int(self._store.get(key))))

    def check(self) -> None:
        """Stop if another process failed; see `Team`."""
        with self._asking():
            self._stop_if_another_failed()

    def leave(self, failed: str | None) -> bool:
        """Tell the others how the work of this process ended.

        The store is there until nobody needs it. If a process failed, process 0 gets the time to say so: torchrun ends
        all processes when one has ended.

        Returns:
            Whether process 0 knows.
        """
        self._over.set()
        heard = not self.rank
        try:
            if failed is not None and not self._store.check([_FAILED]):
                self._store.set(_FAILED, f"process {self.rank}: {failed}")
            if not self.rank:
                self._store.set(_ENDS, "")
            elif failed is not None:
                heard = self._wait(lambda: self._store.check([_ENDS]))
            self._store.add(_LEFT, 1)
            if not self.rank:
                self._wait(lambda: self._store.add(_LEFT, 0) >= self.size)
            elif failed is not None:
                time.sleep(_SAYING)
        except RuntimeError:
            pass  # nobody serves the store any more
        return heard

    @staticmethod
    def _wait(ended: Callable[[], bool]) -> bool:
        until = time.monotonic() + _LEAVING
        while not ended():
            if time.monotonic() > until:
                return False
            time.sleep(_PAUSE)
        return True

    def _live(self) -> None:
        """Give signs of life until the work is over."""
        try:
            while not self._over.wait(_BEAT):
                self._beat()
        except RuntimeError:
            pass  # nobody serves the store any more

    def _beat(self) -> None:
        self._life.add(f"beats of {self.rank}", 1)
        self._pulse += 1

    def _stop_if_another_failed(self) -> None:
        if self._store.check([_FAILED]):
            raise InputError(self._store.get(_FAILED).decode())
        now = time.monotonic()
        if now - self._asked < _BEAT:
            return
        self._asked = now
        # measured in beats of its own, which stop, too, when the whole job is suspended
        for rank, (beats, since) in self._beats.items():
            found = self._store.add(f"beats of {rank}", 0)
            if found != beats:
                self._beats[rank] = found, self._pulse
            elif found and (self._pulse - since) * _BEAT > _SILENCE:  # before the first, there is the deadline
                raise InputError(
                    f"process {rank} has ended without a word, or hangs: no sign of life for {_SILENCE:.0f} s. Run the "
                    "same command again to continue."
                )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # DistNetworkError and its kin
            raise InputError("process 0 has ended, so the others cannot finish; run the same command again.") from error


@contextmanager
def launched(environment: Mapping[str, str] = os.environ) -> Iterator[Team]:
    """Join the processes of this command that a launcher started, if one did.

    Only process 0 says anything, unless it is gone, and what fails in one process ends all.

    Args:
        environment: The variables of torchrun, or of SLURM's srun.

    Raises:
        InputError: The processes do not find each other, or the work failed in one of them.
    """
    launch = _launch(environment)
    if launch is None:
        yield ALONE
        return
    team = LaunchedTeam(launch)
    try:
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere) if team.rank else nullcontext():
            yield team
            team.gather(None)
    except BaseException as error:
        try:
            heard = team.leave(str(error) or type(error).__name__)
        except Interrupted:  # torchrun ends all when one has ended; that must not take the place of what failed
            heard = team.rank == 0
        if team.rank and heard and isinstance(error, InputError):
            raise SystemExit(2) from error  # process 0 says it
        raise
    team.leave(None)


def _deciding(words: Sequence[str]) -> list[str]:
    """The words of a command without those that may differ between processes: they change no file."""
    found = re.sub(r"--(?:device|num[_-]workers)(?:=|\0)[^\0]*\0", "", "".join(f"{word}\0" for word in words))
    return found.split("\0")[:-1]


def _launch(environment: Mapping[str, str]) -> Launch | None:
    """What a launcher says; None if there is none, or if it started one process."""

    def number(name: str, default: int | None = None) -> int:
        """A variable of the launcher."""
        found = environment.get(name) or default
        try:
            return int(found)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise InputError(f"expected a number in the variable {name}, found {found!r}; see the launcher.") from error

    if all(environment.get(name) for name in _TORCHRUN) and number("WORLD_SIZE") > 1:
        rank = number("RANK")
        serves = rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
        address = environment["MASTER_ADDR"], number("MASTER_PORT")
        run, attempt = (environment.get(f"TORCHELASTIC_{part}", "0") for part in ("RUN_ID", "RESTART_COUNT"))
        neighbours = number("LOCAL_WORLD_SIZE", 1)
        size, name = number("WORLD_SIZE"), f"ssdd {run} {attempt}"
        return Launch(rank, size, neighbours, address, serves, name, "RANK and WORLD_SIZE")
    if number("SLURM_STEP_NUM_TASKS", 1) > 1:
        from lightning_fabric.plugins.environments import SLURMEnvironment  # type: ignore[attr-defined]

        rank, job, step = (number(name) for name in ("SLURM_PROCID", "SLURM_JOB_ID", "SLURM_STEP_ID"))
        nodes = environment.get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        host = environment.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
        port = number("MASTER_PORT", _FIRST_PORT + (job * 31 + step) % _PORTS)
        # SLURM binds each task to its own cores
        size, name = number("SLURM_STEP_NUM_TASKS"), f"ssdd {job}.{step}"
        return Launch(rank, size, 1, (host, port), rank == 0, name, "SLURM_STEP_NUM_TASKS")
    return None
