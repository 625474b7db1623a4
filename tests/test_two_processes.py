"""Every stage in two processes on the CPU, with odd numbers of images: nothing hangs, every image counts once."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.pipeline.lightning import run_command
from ssdd_lightning.synthetic.devkit import write_synthetic_devkit
from tests.helpers.files import contents
from tests.helpers.processes import SLOW
from tests.helpers.stages import write_stage

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "classification": ("ClassificationModule", {"scales": [1.0]}),
    "affinity": ("AffinityModule", {}),
    "static": ("StaticRefinementModule", {}),
    "baseline": ("SegmentationModule", {}),
    "dynamic": ("DynamicRefinementModule", {}),
}
GUIDES = {
    "affinity": ["knowledge", "advice", "maps"],
    "static": ["knowledge", "advice"],
    "baseline": ["knowledge"],
    "dynamic": ["knowledge"],
}
COMMANDS = {stage: ["fit", "validate", "test", "predict"] for stage in MODELS}
COMMANDS["classification"] = COMMANDS["affinity"] = ["fit", "validate", "predict"]
TRAIN, VAL = 7, 5
RUN = """
import json, os, sys
from ssdd_lightning.pipeline.lightning import run_command
scores = {}
for key, words in json.load(open(sys.argv[1])).items():
    trainer = run_command(words).trainer
    assert trainer.world_size == 2
    scores[key] = {name: float(value) for name, value in trainer.callback_metrics.items()}
if os.environ["RANK"] == "0":
    json.dump(scores, open(sys.argv[2], "w"))
"""


class Flow:
    """The stages' commands on a devkit of seven and five images."""

    two: dict[str, dict[str, float]]
    one: dict[str, dict[str, float]]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        write_synthetic_devkit(folder, num_train=TRAIN, num_val=VAL, image_size=64, seed=0)
        self.devkit = folder / "VOCdevkit" / "VOC2012"

    def words(self, command: str, stage: str, run: str, *more: object) -> list[str]:
        module, init_args = MODELS[stage]
        data = {"root": self.folder, "augmentation": {"crop_size": 32}, "batch_size": 1}
        guides = dict.fromkeys(GUIDES.get(stage, ()), self.folder / "maps")
        path = self.folder / f"{run}_{stage}.yaml"
        write_stage(path, module, self.folder / run / stage, {**data, **guides}, **init_args)
        return [command, f"--config={path}", *map(str, more)]

    def checkpoint(self, stage: str) -> Path:
        return self.folder / "two" / stage / "checkpoints" / "last.ckpt"


def start(command: Sequence[str], rank: int, port: int) -> subprocess.Popen[str]:
    variables: dict[str, object] = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": 2,
        "LOCAL_WORLD_SIZE": 2,
        "GROUP_RANK": 0,
    }
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    environment = os.environ | {key: str(value) for key, value in variables.items()} | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def two_processes(command: Sequence[str], patience: float = 240) -> tuple[list[int], list[str]]:
    """Run a command as `torchrun --nproc_per_node 2` does; both must end well and in time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [start(command, rank, port) for rank in range(2)]
    try:
        outputs = [process.communicate(timeout=patience)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """All commands of all stages in two processes, then those that score or write in one, from the same weights."""
    flow = Flow(tmp_path_factory.mktemp("two_processes"))
    maps = flow.words("predict", "classification", "maps", f"--output.output_dir={flow.folder / 'maps'}")
    fit = flow.words("fit", "classification", "maps")
    main(fit)
    main(maps)
    ddp = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    commands = {
        f"{command} {stage}": flow.words(command, stage, "two", *ddp) for stage in MODELS for command in COMMANDS[stage]
    }
    (flow.folder / "commands.json").write_text(json.dumps(commands))
    script = [sys.executable, "-c", RUN, str(flow.folder / "commands.json"), str(flow.folder / "scores.json")]
    statuses, outputs = two_processes(script)
    assert statuses == [0, 0], outputs
    flow.two = json.loads((flow.folder / "scores.json").read_text())
    flow.one = {}
    for key in commands:
        command, stage = key.split()
        if command != "fit":
            trained = f"--ckpt_path={flow.checkpoint(stage)}"
            metrics = run_command(flow.words(command, stage, "one", trained)).trainer.callback_metrics
            flow.one[key] = {name: float(value) for name, value in metrics.items()}
    return flow


@pytest.mark.parametrize("stage", MODELS)
def test_two_processes_report_the_scores_of_one(flow: Flow, stage: str) -> None:
    scored = [key for key in flow.one if key.endswith(stage) and not key.startswith("predict")]
    assert scored
    for key in scored:
        assert flow.two[key] == pytest.approx(flow.one[key], rel=1e-5)
        assert flow.one[key]


def test_two_processes_learn_what_one_learns_with_the_whole_batch(flow: Flow) -> None:
    """To float tolerance, without what is random in a step, and with normalisation that does not look at the batch."""
    plain = [
        *(f"--model.init_args.network.init_args.{o}" for o in ("freeze_norm=true", "head=fpn", "output_stride=32")),
        "--model.init_args.network.init_args.decoder_options={decoder_dropout: 0}",
        *("--trainer.limit_val_batches=0", "--model.init_args.optimization.new_learning_rate=0.1"),
    ]
    frozen = "--model.init_args.ssdd.init_args.frozen_norm=true"
    options = {"baseline": plain, "static": [*plain, frozen], "dynamic": [*plain, frozen]}
    ddp = ["--trainer.strategy=ddp", "--trainer.devices=2", "--data.batch_size=1"]
    commands = {stage: flow.words("fit", stage, "halves", *o, *ddp) for stage, o in options.items()}
    (flow.folder / "fits.json").write_text(json.dumps(commands))
    script = [sys.executable, "-c", RUN, str(flow.folder / "fits.json"), str(flow.folder / "losses.json")]
    statuses, outputs = two_processes(script)
    assert statuses == [0, 0], outputs
    for stage, o in options.items():
        run_command(flow.words("fit", stage, "whole", *o, "--data.batch_size=2"))
        halves, whole = (
            torch.load(flow.folder / run / stage / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
            for run in ("halves", "whole")
        )
        for name, tensor in whole.items():
            torch.testing.assert_close(halves[name], tensor, rtol=1e-4, atol=1e-5, msg=f"{stage}: {name}")


def test_two_processes_write_the_files_of_one(flow: Flow) -> None:
    one, two = (contents(flow.folder / run, "*.png") for run in ("one", "two"))
    assert one.keys() == two.keys()
    assert sum(name.startswith("classification/predictions") for name in one) == TRAIN
    assert sum(name.startswith("dynamic/test") for name in one) == VAL
    assert [name for name in one if one[name] != two[name]] == []


def test_fit_in_two_processes_of_its_own_ends(flow: Flow, tmp_path: Path) -> None:
    """As a user types it: Lightning starts the second process."""
    root = f"--trainer.default_root_dir={tmp_path}"
    words = flow.words("fit", "classification", "own", root, "--trainer.devices=2", "--trainer.strategy=ddp")
    command = [sys.executable, "-m", "ssdd_lightning", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    assert (tmp_path / "config.yaml").is_file()


def test_more_processes_than_images_is_a_sentence(flow: Flow, tmp_path: Path) -> None:
    names = flow.devkit / "ImageSets" / "Segmentation" / "val.txt"
    (tmp_path / "one.txt").write_text(names.read_text().split()[0])
    trained = f"--ckpt_path={flow.checkpoint('baseline')}"
    split = f"--data.splits.test={tmp_path / 'one.txt'}"
    ddp = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    words = flow.words("test", "baseline", "few", trained, split, *ddp)
    statuses, outputs = two_processes([sys.executable, "-m", "ssdd_lightning", *words])
    assert statuses == [2, 2]
    assert "expected at least one image per process, found 1 for 2 processes" in outputs[0]


def test_a_loss_that_is_not_finite_in_one_process_ends_both(flow: Flow) -> None:
    words = flow.words("fit", "baseline", "diverging", "--trainer.strategy=ddp", "--trainer.devices=2")
    script = f"""
import os, sys
import ssdd_lightning
step = ssdd_lightning.SegmentationModule.training_step
def spoilt(self, *arguments):
    return step(self, *arguments) * float("nan" if os.environ["RANK"] == "1" and self.global_step == 1 else 1)
ssdd_lightning.SegmentationModule.training_step = spoilt
sys.argv = ["ssdd", *{words!r}]
from ssdd_lightning.cli.main import entry_point
entry_point()
"""
    statuses, outputs = two_processes([sys.executable, "-c", script])
    assert statuses == [2, 2], outputs
    assert "the loss of step 1 (epoch 0) is NaN, on the images 2007_" in outputs[0]


def slurm(words: Sequence[str], rank: int) -> dict[str, str]:
    """What srun sets for one of two tasks of a node."""
    tasks = {"SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    job = {"SLURM_JOB_ID": os.getpid(), "SLURM_JOB_NAME": "fit", "SLURM_NODEID": 0, "SLURM_NODELIST": "127.0.0.1"}
    return {name: str(value) for name, value in {**tasks, **job, "OMP_NUM_THREADS": 1}.items()}


def test_slurms_warning_ends_all_tasks_and_the_requeued_job_goes_on(flow: Flow) -> None:
    words = flow.words("fit", "baseline", "slurm", "--trainer.strategy=ddp", "--trainer.devices=2")

    def tasks(*more: str) -> list[subprocess.Popen[str]]:
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        command = [sys.executable, "-c", SLOW, *words, *more]
        return [
            subprocess.Popen(command, env={**os.environ, **slurm(words, rank)}, start_new_session=True, **options)
            for rank in range(2)
        ]

    processes = tasks("--trainer.max_epochs=1000", "--data.num_workers=1")
    for line in processes[0].stdout:
        if line == "working\n":
            break
    for process in processes:
        os.killpg(process.pid, signal.SIGUSR1)  # to the workers too
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], outputs
    said = [line for output in outputs for line in output.splitlines() if line.startswith("ssdd: ")]
    assert said == ["ssdd: terminated. Run the same command again to continue."]
    folder = flow.folder / "slurm" / "baseline"
    assert not list(folder.rglob("hpc_ckpt*"))
    steps = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert steps in (1, 2)
    processes = tasks("--trainer.max_epochs=1")
    outputs = [process.communicate(timeout=240)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    entry = json.loads((folder / "fit.json").read_text())
    assert entry["finished"]
