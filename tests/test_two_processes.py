"""Every stage in two processes on the CPU, one in four, with odd numbers of images: nothing hangs, all count once."""

import csv
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
from tests.helpers.processes import SLOW, SSDD, Forked, made_once
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
    assert trainer.world_size == int(os.environ["WORLD_SIZE"])
    scores[key] = {name: float(value) for name, value in trainer.callback_metrics.items()}
if os.environ["RANK"] == "0":
    json.dump(scores, open(sys.argv[2], "w"))
"""


class Flow:
    """The stages' commands on a devkit of seven and five images."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
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


def two_processes(code: str, words: Sequence[object] = (), size: int = 2) -> tuple[list[int | None], list[str]]:
    """Run a program as `torchrun --nproc_per_node 2` does, or with more; all must end well and in time."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared: dict[str, object] = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0, "OMP_NUM_THREADS": 1}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    processes = [Forked(code, words, {**shared, "RANK": rank, "LOCAL_RANK": rank}) for rank in range(size)]
    try:
        outputs = [process.communicate(timeout=120 * size)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [process.returncode for process in processes], outputs


def make_flow(folder: Path) -> None:
    """All commands of all stages in two processes, then those that score or write in one, from the same weights."""
    write_synthetic_devkit(folder, num_train=TRAIN, num_val=VAL, image_size=64, seed=0)
    flow = Flow(folder)
    maps = flow.words("predict", "classification", "maps", f"--output.output_dir={folder / 'maps'}")
    fit = flow.words("fit", "classification", "maps")
    main(fit)
    main(maps)
    ddp = ["--trainer.strategy=ddp", "--trainer.devices=2"]
    commands = {
        f"{command} {stage}": flow.words(command, stage, "two", *ddp) for stage in MODELS for command in COMMANDS[stage]
    }
    (folder / "commands.json").write_text(json.dumps(commands))
    statuses, outputs = two_processes(RUN, [folder / "commands.json", folder / "two.json"])
    assert statuses == [0, 0], outputs
    one = {}
    for key in commands:
        command, stage = key.split()
        if command != "fit":
            trained = f"--ckpt_path={flow.checkpoint(stage)}"
            metrics = run_command(flow.words(command, stage, "one", trained)).trainer.callback_metrics
            one[key] = {name: float(value) for name, value in metrics.items()}
    (folder / "one.json").write_text(json.dumps(one))


@pytest.fixture(scope="module")
def flow(tmp_path_factory: pytest.TempPathFactory) -> Flow:
    """Made once in all processes of the tests, for it takes long."""
    return Flow(made_once(tmp_path_factory, "two_processes", make_flow))


@pytest.mark.parametrize("stage", MODELS)
def test_two_processes_report_the_scores_of_one(flow: Flow, stage: str) -> None:
    two, one = (json.loads((flow.folder / f"{number}.json").read_text()) for number in ("two", "one"))
    scored = [key for key in one if key.endswith(stage) and not key.startswith("predict")]
    assert scored
    for key in scored:
        assert two[key] == pytest.approx(one[key], rel=1e-5)
        assert one[key]


FREEZE = "--model.init_args.network.init_args.freeze_norm=true"
PLAIN = [
    *(FREEZE, "--trainer.limit_val_batches=0", "--model.init_args.optimization.new_learning_rate=0.1"),
    *(f"--model.init_args.network.init_args.{o}" for o in ("head=fpn", "output_stride=32")),
    "--model.init_args.network.init_args.decoder_options={decoder_dropout: 0}",
]
FROZEN = [*PLAIN, "--model.init_args.ssdd.init_args.frozen_norm=true"]
CLASSIFY = [FREEZE, "--model.init_args.network.init_args.dropout=0"]
KEPT = [*FROZEN, "--model.init_args.ssdd.init_args.biases.failed_ratio=0"]  # or else all samples are bad ones
STEADY = {"classification": CLASSIFY, "affinity": [FREEZE], "baseline": PLAIN, "static": FROZEN, "dynamic": KEPT}
"""Options without what is random in a step, and with normalisation that does not look at the batch."""
LOSSES = {
    "classification": ["train/loss"],
    "affinity": ["train/loss", "train/confident"],
    "baseline": ["train/loss"],
    "static": ["train/loss", "train/base", "train/diff0"],
    "dynamic": [f"train/{name}" for name in ("loss", "main", "sub", "diff1", "diff2", "changed")],
}


def steady_fit(flow: Flow, stage: str, run: str, *more: str) -> list[str]:
    logger = ["CSVLogger", f"--trainer.logger.save_dir={flow.folder / run / stage}", "--trainer.log_every_n_steps=1"]
    truth = f"--data.knowledge={flow.devkit / 'SegmentationClass'}"  # has more than background in each crop
    guide = [truth] if stage in GUIDES else []
    return flow.words("fit", stage, run, *STEADY[stage], "--trainer.logger", *logger, *guide, *more)


def logged_numbers(folder: Path) -> list[dict[str, float]]:
    """What a fit logged, except times, in the order of its steps."""
    (path,) = folder.rglob("metrics.csv")
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    return [{name: float(v) for name, v in row.items() if v and not name.startswith("time/")} for row in rows]


@pytest.mark.parametrize(("size", "stages"), [(2, list(STEADY)), (4, ["dynamic"])])
def test_processes_learn_and_log_what_one_does_with_the_whole_batch(flow: Flow, size: int, stages: list[str]) -> None:
    """To float tolerance, every loss in every step, and the weights after the last one."""
    ddp = ["--trainer.strategy=ddp", f"--trainer.devices={size}", "--data.batch_size=1"]
    shared, whole = f"shared_{size}", f"whole_{size}"
    commands = {stage: steady_fit(flow, stage, shared, *ddp) for stage in stages}
    (flow.folder / f"fits_{size}.json").write_text(json.dumps(commands))
    statuses, outputs = two_processes(RUN, [flow.folder / f"fits_{size}.json", os.devnull], size)
    assert statuses == [0] * size, outputs
    for stage in stages:
        run_command(steady_fit(flow, stage, whole, f"--data.batch_size={size}"))
        told, logged = (logged_numbers(flow.folder / run / stage) for run in (shared, whole))
        assert all(any(row.get(name) for row in logged) for name in LOSSES[stage]), "a loss of 0 shows nothing"
        for ours, theirs in zip(told, logged, strict=True):
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():  # a pixel may fall to another class by rounding
                share = name in ("train/changed", "train/confident") or not name.startswith("train/")
                assert ours[name] == pytest.approx(value, rel=1e-4, abs=0.005 if share else 1e-5), (stage, name)
        parts, one = (
            torch.load(flow.folder / run / stage / "checkpoints" / "last.ckpt", weights_only=False)["state_dict"]
            for run in (shared, whole)
        )
        for name, tensor in one.items():
            torch.testing.assert_close(parts[name], tensor, rtol=1e-4, atol=1e-5, msg=f"{stage}: {name}")


SHARDED = """
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from ssdd_lightning import SegmentationNetwork
from ssdd_lightning.functional import segmentation_loss
from ssdd_lightning.functional.totals import over_processes, own
from ssdd_lightning.nn.ssdd import resize_logits

def network():
    torch.manual_seed(0)
    return SegmentationNetwork(4, "test_vit", "fpn", 32, decoder_options={"decoder_dropout": 0})

def step(model, image, mask, total):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    *_, logits = model(image)
    loss = segmentation_loss(resize_logits(logits, mask.shape[-2:]), mask, total=total)
    loss.backward()
    optimizer.step()
    return loss.detach()

image, mask = torch.randint(0, 256, (4, 3, 32, 48), dtype=torch.uint8), torch.randint(0, 4, (4, 32, 48))
mask[0, :20] = 255  # each process has another number of labelled pixels
distributed.init_process_group("gloo")
distributed.broadcast(image, 0)
distributed.broadcast(mask, 0)
whole, sharded, rank = network(), network(), distributed.get_rank()
loss = step(whole, image, mask, own)
mesh = init_device_mesh("cpu", (2,))
for block in sharded.backbone.model.blocks:
    fully_shard(block, mesh=mesh)
fully_shard(sharded, mesh=mesh)
part = step(sharded, image[rank::2], mask[rank::2], over_processes)
torch.testing.assert_close(over_processes(part) / 2, loss)
first = network().state_dict()
found = {name: tensor.full_tensor() for name, tensor in sharded.state_dict().items() if tensor.is_floating_point()}
weights = dict(whole.named_parameters())
assert found.keys() >= weights.keys()
for name, tensor in weights.items():
    assert not torch.equal(tensor, first[name]), name
    torch.testing.assert_close(found[name], tensor.detach(), rtol=1e-4, atol=1e-6, msg=name)
qkv = sharded.backbone.model.blocks[0].attn.qkv.weight
assert qkv.to_local().numel() * 2 == qkv.numel()
distributed.destroy_process_group()
"""


@pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 13), reason="the gloo of older ones may not average"
)
def test_a_sharded_transformer_takes_the_step_of_a_whole_one() -> None:
    """Fully sharded data parallel: each process keeps half of every weight."""
    statuses, outputs = two_processes(SHARDED)
    assert statuses == [0, 0], outputs


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
    statuses, outputs = two_processes(SSDD, words)
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
    statuses, outputs = two_processes(script)
    assert statuses == [2, 2], outputs
    assert "the loss of step 1 (epoch 0) is NaN, on the images 2007_" in outputs[0]


def slurm(words: Sequence[str], rank: int) -> dict[str, str]:
    """What srun sets for one of two tasks of a node."""
    tasks = {"SLURM_NTASKS": 2, "SLURM_NTASKS_PER_NODE": 2, "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
    job = {"SLURM_JOB_ID": os.getpid(), "SLURM_JOB_NAME": "fit", "SLURM_NODEID": 0, "SLURM_NODELIST": "127.0.0.1"}
    return {name: str(value) for name, value in {**tasks, **job, "OMP_NUM_THREADS": 1}.items()}


def test_slurms_warning_ends_all_tasks_and_the_requeued_job_goes_on(flow: Flow) -> None:
    words = flow.words("fit", "baseline", "slurm", "--trainer.strategy=ddp", "--trainer.devices=2")

    def tasks(*more: str) -> list[Forked]:
        return [Forked(SLOW, [*words, *more], slurm(words, rank), session=True) for rank in range(2)]

    processes = tasks("--trainer.max_epochs=1000", "--data.num_workers=1")
    for line in processes[0].stdout:
        if line == "working\n":
            break
    for process in processes:
        process.send_signal(signal.SIGUSR1, group=True)  # to the workers too
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
