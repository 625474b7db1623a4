"""Every command, killed or out of disk space in the middle of its work and called again, ends as one never stopped."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.io import savemat

from ssdd_lightning.storage.masks import read_mask
from ssdd_lightning.storage.safe_npy import load_npy
from tests.helpers.parts import write_parts
from tests.helpers.processes import FORKS
from tests.helpers.stages import SMALL_RUN, write_stage

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart"
KILLS = int(os.environ.get("KILLS", "0"))
"""Further moments to stop each command at, spread over its work, each by a kill and by a full disk."""
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


THREADED = ("crf", "par", "merge", "import", "export")
"""Commands whose threads write a few images before the first of them is noted as finished."""


def process(words: list[str], home: Path, count: Any, last: int, fault: int, slow: float) -> None:
    """One command in a process of its own; before its last change of its output it is killed, or its disk fails."""
    clock = time.time
    time.time = lambda: clock() - slow
    os.chdir(home)
    with Path("said").open("ab") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        """Count what a command does to its output: a new name, a link, a line more in a journal."""
        if event in ("os.rename", "os.link"):
            changed = arguments[1]
        elif event in ("open", "os.mkdir"):
            changed = arguments[0]
        else:
            return
        if not Path(str(changed)).absolute().is_relative_to(home / "out"):
            return
        counted = event not in ("open", "os.mkdir") or "a" in str(arguments[1])
        count.value += counted
        if counted and count.value == last and not fault:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault and count.value >= last and (counted or event == "os.mkdir" or arguments[2] & WRITES):
            raise OSError(fault, os.strerror(fault), str(changed))

    sys.addaudithook(watch)
    sys.argv = ["ssdd", *words]
    from ssdd_lightning.cli.main import entry_point

    sys.exit(entry_point())


def run(words: list[str], home: Path, last: int = 0, fault: int = 0, slow: float = 0) -> tuple[int, int]:
    """Run a command to its end, a kill or a fault; return its status and how often it changed its output.

    Its clock is `slow` by so many seconds.
    """
    count = FORKS.Value("i", 0, lock=False)
    child = FORKS.Process(target=process, args=(words, home, count, last, fault, slow))
    child.start()
    child.join(timeout=900)
    return child.exitcode, count.value


def content(path: Path) -> Any:
    """What a file says, without the times that it took."""
    if path.suffix == ".ckpt":
        state = torch.load(path, weights_only=True)["state_dict"]
        if path.stem == "last-before":  # a step older, or as old, as the number of writes has it
            return sorted(state)
        return {name: tensor.numpy().tobytes() for name, tensor in state.items()}
    found = json.loads(path.read_text()) if path.suffix == ".json" else None
    if path.suffix == ".npy" and isinstance(arrays := load_npy(path), dict):  # a pickle, and those hold addresses
        return {key: np.asarray(array).tobytes() for key, array in arrays.items()}
    if path.name == "data.yaml":  # says where it lies
        return path.read_text().replace(str(path.parents[1]), "")
    if path.name == "results.json":
        return [{**row, "seconds": None} for row in found]
    if isinstance(found, dict) and "ledger" in found:
        return {part: found[part] for part in ("product", "settings", "finished", "left_over")}
    return path.read_bytes()


def written(home: Path) -> dict[str, Any]:
    files = [path for path in (home / "out").rglob("*") if path.is_file() and path.suffix != ".jsonl"]
    return {str(path.relative_to(home)): content(path) for path in files}


@pytest.fixture(scope="module")
def given(tiny_devkit: Path, coco_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders and files that the commands read; those of four images where that is enough."""
    root = tmp_path_factory.mktemp("given")
    devkit = tiny_devkit / "VOCdevkit" / "VOC2012"
    names = (devkit / "ImageSets" / "Segmentation" / "train.txt").read_text().split()[:4]
    labels = write_parts(root, devkit / "SegmentationClass", names)
    (root / "photos").mkdir()
    (root / "sbd" / "cls").mkdir(parents=True)
    for name in names:
        shutil.copy(devkit / "JPEGImages" / f"{name}.jpg", root / "photos")
        mask = read_mask(devkit / "SegmentationClass" / f"{name}.png")
        savemat(root / "sbd" / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": np.where(mask == 255, 0, mask)}})
    (root / "sbd" / "train.txt").write_text("\n".join(names[:2]))
    (root / "sbd" / "val.txt").write_text("\n".join(names[2:]))
    (root / "labels.json").write_text(json.dumps(labels))
    data = {"root": tiny_devkit, "knowledge": devkit / "SegmentationClass", "classes": ["cat", "dog"]}
    data |= {"augmentation": {"crop_size": 32}, "batch_size": 4}
    trainer = {"max_epochs": 3, "limit_val_batches": 0}
    path = write_stage(root / "stage.yaml", "SegmentationModule", Path("out"), data, trainer=trainer)
    every_step = {"checkpoint": {"every_n_minutes": 0}}
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **every_step}))
    return root


@pytest.fixture(scope="module")
def fitted(given: Path) -> tuple[Path, int]:
    """A fit that was never stopped: the folder that it ran in, and how often it changed its output."""
    home = given / "fitted"
    home.mkdir()
    status, changes = run(words_of("fit", given), home)
    assert status == 0, (home / "said").read_text()
    return home, changes


def words_of(command: str, given: Path) -> list[str]:
    """A command and its options; all write into the folder `out`."""
    stage = [f"--config={given / 'stage.yaml'}"]
    trained = f"--ckpt_path={given / 'fitted' / 'out' / 'checkpoints' / 'last.ckpt'}"
    photos, one = f"--images={given / 'photos'}", "--num_workers=1"
    guides = [f"--knowledge={given / 'K'}", f"--advice={given / 'A'}"]
    devkit = yaml.safe_load((given / "stage.yaml").read_text())["data"]["root"]
    small = {**SMALL_RUN, "trainer.limit_val_batches": 0}
    sets = [word for key, value in small.items() for word in ("--set", f"{key}={value}")]
    fast = ["--backbone=test_efficientnet", "--weights=none", "--batch_size=2", "--epochs=1", "--device=cpu"]
    words = {
        "fit": ["fit", *stage],
        "test": ["test", *stage, trained, "--output.output_dir=out", "--data.splits.test=train"],
        "predict": ["predict", *stage, trained, "--output.output_dir=out", "--data.batch_size=1"],
        "crf": ["crf", photos, f"--maps={given / 'maps'}", "--iterations=1", one],
        "par": ["par", photos, f"--maps={given / 'maps'}", "--iterations=1", "--device=cpu", one],
        "report": ["report", f"--predictions={given / 'K'}", photos, *guides],
        "merge": ["merge", *guides, f"--differences={given / 'seeds'}"],
        "segment": ["segment", trained.partition("=")[2], str(given / "photos"), "--overlays", "--device=cpu"],
        "import": ["import", str(given / "psa"), "--from=psa-cam", photos, one],
        "export": ["export", str(given / "maps"), "--to=irn", one],
        "prepare voc": ["prepare", "voc", f"--voc={devkit}", f"--sbd={given / 'sbd'}", one],
        "prepare coco": ["prepare", "coco", f"--coco={given / 'coco'}", one],
        "prepare folder": ["prepare", "folder", str(given / "photos"), f"--labels={given / 'labels.json'}", one],
        "refine": ["refine", photos, *guides, "--num_workers=0", "--crop_size=32", *fast],
        "run": ["run", str(EXPERIMENT), f"--root={devkit}", "--classifier_weights=null", "--pictures=1", *sets],
    }[command]
    return words if command in ("fit", "test", "predict") else [*words, "--out=out"]


def never_stopped(command: str, given: Path, fitted: tuple[Path, int], tmp_path: Path) -> tuple[Path, int]:
    """The folder of a command that was never stopped, and how often it changed its output."""
    if command == "fit":
        return fitted
    home = tmp_path / "whole"
    home.mkdir()
    status, changes = run(words_of(command, given), home)
    assert status == 0, (home / "said").read_text()
    return home, changes


def nothing_noted(command: str, stopped: Path) -> bool:
    """Whether all that a stopped command had written was still in work, so that nothing of it can be kept."""
    return command in THREADED and not any(path.stat().st_size for path in (stopped / "out").glob("*.items.jsonl"))


def check_sentence(said: str, fault: int) -> None:
    """The last line names the output and the fault."""
    assert "Traceback" not in said
    *_, sentence = said.splitlines()
    assert re.fullmatch(rf"ssdd: error: .*\bout\b.*{os.strerror(fault)}.*\.", sentence), sentence


def check_same(stopped: Path, whole: Path) -> None:
    expected, found = written(whole), written(stopped)
    assert sorted(found) == sorted(expected), stopped
    assert [name for name in expected if found[name] != expected[name]] == [], stopped


@pytest.mark.parametrize(
    "command",
    [
        *("fit", "test", "predict", "crf", "par", "merge", "refine", "segment", "import", "export", "report", "run"),
        *("prepare voc", "prepare coco", "prepare folder"),
    ],
)
def test_a_command_that_was_stopped_ends_as_one_that_was_not(
    command: str, given: Path, fitted: tuple[Path, int], coco_source: Path, tmp_path: Path
) -> None:
    if command == "prepare coco":
        pytest.importorskip("pycocotools", reason="pycocotools is not installed (extra `coco`)")
    if command == "prepare coco" and not (given / "coco").exists():
        shutil.copytree(coco_source, given / "coco")
    words = words_of(command, given)
    whole, changes = never_stopped(command, given, fitted, tmp_path)
    half = max(1, changes // 2)
    # in one folder, where each goes on after the one before
    stops = [[(0, errno.EROFS), (min(2, half), 0), (half, 0), (half, errno.ENOSPC)]]
    moments: Any = (
        np.random.default_rng(0).permutation(np.linspace(1, changes, KILLS).round().astype(int)) if KILLS else []
    )
    stops += [[(int(moment), fault)] for moment in moments for fault in (0, errno.ENOSPC)]
    for number, each in enumerate(stops):
        stopped = tmp_path / f"stopped{number}"
        stopped.mkdir()
        for last, fault in each:
            status, _ = run(words, stopped, last, fault)
            said = (stopped / "said").read_text()
            assert status == (2 if fault else -signal.SIGKILL), said
            if fault:
                check_sentence(said, fault)
        ahead = nothing_noted(command, stopped)
        status, left = run(words, stopped)
        assert status == 0, (stopped / "said").read_text()
        assert left < changes or number or command == "report" or ahead, "what was finished was kept"
        check_same(stopped, whole)
        shutil.rmtree(stopped)


@pytest.mark.parametrize("command", ["fit", "predict", "crf", "report"])
def test_a_clock_that_is_set_back_changes_nothing(
    command: str, given: Path, fitted: tuple[Path, int], tmp_path: Path
) -> None:
    words = words_of(command, given)
    whole, changes = never_stopped(command, given, fitted, tmp_path)
    stopped = tmp_path / "stopped"
    stopped.mkdir()
    assert run(words, stopped, last=max(1, changes // 2))[0] == -signal.SIGKILL
    ahead = nothing_noted(command, stopped)
    day = 86_400.0
    for again in (False, True):
        status, left = run(words, stopped, slow=day)
        assert status == 0, (stopped / "said").read_text()
        assert left < (2 if again else changes) or (ahead and not again), "what was finished was kept"
    check_same(stopped, whole)


SMALL_DISK = """
mount -t tmpfs -o size=$0 none out || exit 3
"$@" > said 2>&1
echo $? > status
mount -o remount,size=1g out
"$@" || exit 4
cp -r out kept
"""
"""A command on a filesystem of a few pages, which then grows, and the same command again."""


def unshared(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", *words], cwd=cwd, capture_output=True, text=True, check=False
    )


ON_SMALL_DISKS = ["fit", "predict", "crf", "report", *(["test", "merge", "segment", "prepare voc"] if KILLS else [])]
"""Each takes two starts; without `make kills` those that write in other ways than the ones before them."""


@pytest.mark.parametrize("command", ON_SMALL_DISKS)
def test_a_filesystem_that_is_full_costs_a_sentence(
    command: str, given: Path, fitted: tuple[Path, int], tmp_path: Path
) -> None:
    if not shutil.which("unshare") or unshared("mount", "-t", "tmpfs", "none", str(tmp_path), cwd=tmp_path).returncode:
        pytest.skip("mounting a filesystem is not allowed here")
    words, stopped = words_of(command, given), tmp_path / "stopped"
    whole, _ = never_stopped(command, given, fitted, tmp_path)
    pages = sum(-(-path.stat().st_size // 4096) for path in (whole / "out").rglob("*") if path.is_file())
    (stopped / "out").mkdir(parents=True)
    ssdd = [sys.executable, "-m", "ssdd_lightning", *words]
    done = unshared("sh", "-c", SMALL_DISK, str(pages // 2 * 4096), *ssdd, cwd=stopped)
    assert done.returncode == 0, done.stderr
    said = (stopped / "said").read_text()
    assert (stopped / "status").read_text() == "2\n", said
    check_sentence(said, errno.ENOSPC)
    (stopped / "out").rmdir()
    (stopped / "kept").rename(stopped / "out")
    check_same(stopped, whole)
