"""Commands that work on files, as torchrun and srun start them: several times."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ssdd_lightning.cli import launched as launched_module
from ssdd_lightning.cli.launched import launched
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.storage.score_maps import map_path
from ssdd_lightning.storage.team import ALONE
from tests.helpers.parts import write_parts
from tests.helpers.processes import SSDD, Forked


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(rank: int, size: int, port: int) -> dict[str, str]:
    """What torchrun sets for a process if it does not serve the store itself."""
    own = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in own.items()}}


def srun(rank: int, size: int, port: int) -> dict[str, str]:
    """What srun sets for a task."""
    job = {"SLURM_JOB_ID": port, "SLURM_STEP_ID": 2, "SLURM_STEP_NODELIST": "127.0.0.1"}
    return {name: str(value) for name, value in {**job, "SLURM_PROCID": rank, "SLURM_STEP_NUM_TASKS": size}.items()}


def start(words: list[str], size: int = 2, variables: Any = torchrun) -> list[Forked]:
    return start_each([SSDD] * size, variables, words=words)


def start_each(
    programs: list[str],
    variables: Any = torchrun,
    size: int | None = None,
    more: Mapping[str, str] | None = None,
    words: Sequence[str] = (),
) -> list[Forked]:
    """Start the processes of one launch, each with a program of its own."""
    port = int((more or {}).get("MASTER_PORT", free_port()))
    return [
        Forked(program, words, {**variables(rank, size or len(programs), port), **(more or {})})
        for rank, program in enumerate(programs)
    ]


def start_interpreters(words: list[str], size: int, variables: Any) -> list[subprocess.Popen[str]]:
    """Start the processes of one launch as a user does; they share no seed of hashes, and end as interpreters do."""
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, "-m", "ssdd_lightning", *words],
            env=os.environ | variables(rank, size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(size)
    ]


def ended(processes: Sequence[Forked | subprocess.Popen[str]]) -> tuple[list[int | None], list[str]]:
    try:
        outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


@pytest.fixture(scope="module")
def given(tiny_devkit: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks, score maps and difference maps of seven images."""
    root = tmp_path_factory.mktemp("given")
    devkit = tiny_devkit / "VOCdevkit" / "VOC2012"
    names = (devkit / "ImageSets" / "Segmentation" / "train.txt").read_text().split()[:7]
    (root / "names.txt").write_text("\n".join(names))
    (root / "photos").symlink_to(devkit / "JPEGImages")
    (root / "truth").symlink_to(devkit / "SegmentationClass")
    write_parts(root, root / "truth", names)
    return root


def words_of(command: str, given: Path) -> list[str]:
    guides = [f"--knowledge={given / 'K'}", f"--advice={given / 'A'}"]
    photos = f"--images={given / 'photos'}"
    scored = [f"--predictions={given / 'A'}", f"--advice={given / 'K'}", f"--truth={given / 'truth'}"]
    return {
        "crf": ["crf", photos, f"--maps={given / 'maps'}", "--iterations=1"],
        "merge": ["merge", *guides, f"--differences={given / 'seeds'}"],
        "import": ["import", str(given / "psa"), "--from=psa-cam", photos],
        "evaluate": ["evaluate", *scored, f"--split={given / 'names.txt'}", "--boundary"],
    }[command]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.png")}


@pytest.mark.parametrize(
    ("command", "size", "variables", "starts"),
    [("crf", 4, torchrun, start), ("merge", 2, srun, start_interpreters), ("import", 2, torchrun, start)],
)
def test_each_file_is_made_once(
    given: Path, tmp_path: Path, command: str, size: int, variables: Any, starts: Any
) -> None:
    one, out = tmp_path / "one", tmp_path / "out"
    words = words_of(command, given)
    main([*words, f"--out={one}"])
    words.append(f"--out={out}")
    statuses, outputs = ended(starts(words, size, variables))
    assert statuses == [0] * size, outputs
    assert outputs[1:] == [""] * (size - 1), "process 0 speaks for all"
    assert files_of(out) == files_of(one)
    assert sum(len(path.read_text().splitlines()) for path in out.glob("*.items*.jsonl")) == 7
    assert len(list(out.glob("*.items*.jsonl"))) == size
    assert not (out / ".lock").exists()
    entry = json.loads(next(out.glob("*.json")).read_text())
    assert entry["finished"]
    statuses, outputs = ended(start(words, size, variables))
    assert statuses == [0] * size, outputs
    assert "finished" in outputs[0] or command == "import"
    first = sorted(files_of(out))[0]
    (out / first).unlink()
    main(words)  # one process goes on with what several made
    assert files_of(out) == files_of(one)


def test_scores_are_those_of_one_process(given: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = words_of("evaluate", given)
    main([*words, f"--json={tmp_path / 'one.json'}"])
    told = capsys.readouterr().out
    statuses, outputs = ended(start([*words, f"--json={tmp_path / 'three.json'}"], 3))
    assert statuses == [0, 0, 0]
    assert outputs == [told, "", ""]
    assert (tmp_path / "three.json").read_bytes() == (tmp_path / "one.json").read_bytes()


def test_more_processes_than_images(given: Path, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text((given / "names.txt").read_text().split()[0])
    words = [word for word in words_of("evaluate", given) if not word.startswith("--split")]
    statuses, outputs = ended(start([*words, f"--split={tmp_path / 'one.txt'}"], 2))
    assert statuses == [0, 0], outputs
    assert "1 image" in outputs[0]


def test_what_fails_in_one_process_ends_all_and_the_first_says_so(given: Path, tmp_path: Path) -> None:
    names = sorted((given / "names.txt").read_text().split())
    maps = tmp_path / "maps"
    maps.mkdir()
    for name in names:
        target = map_path(maps, name)
        target.write_bytes(b"broken" if name == names[1] else map_path(given / "maps", name).read_bytes())
    words = ["crf", f"--images={given / 'photos'}", f"--maps={maps}", f"--out={tmp_path / 'out'}", "--iterations=1"]
    statuses, outputs = ended(start(words))
    assert statuses == [2, 2], outputs
    assert f"{names[1]}.map.png" in outputs[0]
    assert "Traceback" not in "".join(outputs)
    assert not outputs[1]
    map_path(maps, names[1]).write_bytes(map_path(given / "maps", names[1]).read_bytes())
    statuses, outputs = ended(start(words))
    assert statuses == [0, 0], outputs
    assert len(files_of(tmp_path / "out")) == 7


def test_a_signal_ends_all(given: Path, tmp_path: Path) -> None:
    words = [*words_of("crf", given), f"--out={tmp_path / 'out'}", "--iterations=5000", "--num_workers=1"]
    processes = start(words)
    until = time.monotonic() + 60
    while not (tmp_path / "out" / "crf.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    statuses, outputs = ended(processes)
    assert statuses == [143, 143], outputs
    assert [bool(output) for output in outputs] == [True, False], outputs


def test_without_a_launcher_there_is_one_process() -> None:
    for variables in ({}, {"RANK": "0", "WORLD_SIZE": "1"}, {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}):
        with launched(variables) as team:
            assert team is ALONE
            assert team.gather(3) == [3]
            assert team.share("abc") == ["a", "b", "c"]


def test_two_commands_of_one_launch_do_not_read_each_others_values(given: Path, tmp_path: Path) -> None:
    """As torchrun starts a script: its store outlives the first command."""
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    port = free_port()
    server = TCPStore("127.0.0.1", port, None, True)
    first, second = words_of("evaluate", given), [w.replace("/A", "/K") for w in words_of("evaluate", given)]
    script = f"""
import sys, time
from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
for words in {first!r}, {second!r}:
    sys.argv[1:] = words
    main(words)
    time.sleep({{}})
"""
    programs = [script.format(3 * rank) for rank in range(2)]
    agent = {"TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_PORT": str(port)}
    statuses, outputs = ended(start_each(programs, more=agent))
    assert statuses == [0, 0], outputs
    (alone,) = Forked(SSDD, second).communicate(timeout=120)
    assert outputs[0].endswith(alone)
    assert not outputs[0].startswith(alone)
    del server


def test_processes_that_cannot_meet_or_have_other_words(given: Path, tmp_path: Path) -> None:
    words = words_of("evaluate", given)
    script = f"""
import sys
from ssdd_lightning.cli import launched, main
launched._MEETING = 2
sys.argv[1:] = {words!r} + {{}}
main.entry_point()
"""
    statuses, outputs = ended(start_each([script.format([])], size=2))
    assert statuses == [2]
    assert "cannot meet the others at 127.0.0.1" in outputs[0]
    assert "unset RANK and WORLD_SIZE to work alone" in outputs[0]
    patient = script.replace("= 2", "= 60")
    statuses, outputs = ended(start_each([patient.format(["--curves"] * rank) for rank in range(2)]))
    assert statuses == [2, 2], outputs
    assert "must run the same command" in outputs[0]


def test_a_process_that_is_killed_ends_the_others(given: Path, tmp_path: Path) -> None:
    words = [*words_of("crf", given), f"--out={tmp_path / 'out'}", "--iterations=5000", "--num_workers=1"]
    script = f"""
import sys
from ssdd_lightning.cli import launched, main
launched._BEAT, launched._SILENCE = 0.2, 3
sys.argv[1:] = {words!r}
main.entry_point()
"""
    processes = start_each([script] * 2)
    until = time.monotonic() + 60
    while not (tmp_path / "out" / "crf.json").exists() and time.monotonic() < until:
        time.sleep(0.1)
    processes[1].kill()
    statuses, outputs = ended(processes)
    assert statuses == [2, -signal.SIGKILL], outputs
    assert "process 1 has ended without a word, or hangs" in outputs[0]


@pytest.mark.parametrize("variables", [{"RANK": "x"}, {"WORLD_SIZE": "two"}, {"MASTER_PORT": "-"}])
def test_a_variable_that_is_no_number_is_a_sentence(variables: dict[str, str]) -> None:
    told = pytest.raises(InputError, match="expected a number in the variable")
    with told, launched({**torchrun(0, 2, 1), **variables}):
        pass


def test_long_values_are_sent_in_parts() -> None:
    code = """
import sys
from ssdd_lightning.cli import launched as launched_module
from ssdd_lightning.cli.launched import launched
sys.argv[1:] = []
with launched() as team:
    first = team.gather(["x" * 20_000_000] if not team.rank else None)[0]
    assert len(first[0]) == 20_000_000
"""
    statuses, outputs = ended(start_each([code] * 2))
    assert statuses == [0, 0], outputs


def test_words_that_change_no_file_may_differ() -> None:
    words = ["crf", "--out=x", "--num_workers=3", "--device", "cuda:1", "--num-workers", "2", "--maps", "y"]
    assert launched_module._deciding(words) == ["crf", "--out=x", "--maps", "y"]


def test_the_launchers_signal_does_not_take_the_place_of_what_failed() -> None:
    """As torchrun, which ends all processes when one has ended; the third is busy meanwhile."""
    code = """
import os, sys, time
from ssdd_lightning.cli import main
from ssdd_lightning.cli import launched as launched_module
from ssdd_lightning.cli.launched import launched
from ssdd_lightning.errors import InputError
sys.argv[1:] = []
def work():
    with launched() as team:
        if team.rank == 1:
            raise InputError("mask 7.png is damaged.")
        time.sleep(8 * (team.rank == 2))
main.main = work
main.entry_point()
"""
    processes = start_each([code] * 3)
    processes[1].wait(timeout=60)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    statuses, outputs = ended(processes)
    assert statuses[:2] == [2, 2], outputs
    assert "ssdd: error: process 1: mask 7.png is damaged." in outputs[0]
