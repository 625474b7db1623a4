"""Where the time of a training step goes, by kind of operation; before and after a change, as a picture.

    python benchmarks/step_profile.py --threads 1 --json now.json
    python benchmarks/step_profile.py --plot profile.png --shown before.json now.json

The steps are those of dynamic_step.py. Each kind has its share of the profiled steps, times the least time of a step
without the profiler. "all else" is what no other kind is: activations, losses, the CRF, the optimizer, Python, and what
the profiler itself takes, so that it is shown too large.
"""

import argparse
import json
import warnings
from pathlib import Path

import torch
from dynamic_step import drawn_batch, stages, step, step_options
from machine import report
from tables import Row
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

CONVOLUTIONS = {
    "aten::mkldnn_convolution": 1,
    "aten::_slow_conv2d_forward": 1,
    "aten::_slow_conv2d_backward": 2,
    "aten::slow_conv_dilated2d": 1,
    "aten::cudnn_convolution": 1,
    "aten::_conv_depthwise2d": 1,
    "aten::convolution_backward": 2,
}
"""The operations that convolve, and which of their arguments is the weight."""
KINDS = {
    "depthwise convolutions": "#0072b2",
    "other convolutions": "#56b4e9",
    "normalisation": "#e69f00",
    "copies and casts": "#cc79a7",
    "all else": "#999999",
}
"""What the operations are counted as, and its colour."""


def kind(name: str, shapes: list[list[int]]) -> str:
    """What an operation is counted as."""
    if name in CONVOLUTIONS:
        weight = shapes[CONVOLUTIONS[name]]
        return "depthwise convolutions" if weight[0] > 1 == weight[1] else "other convolutions"
    if "batch_norm" in name or "group_norm" in name:
        return "normalisation"
    return "copies and casts" if name in ("aten::copy_", "aten::_to_copy", "aten::clone") else "all else"


def measured(options: argparse.Namespace) -> list[Row]:
    """One row a step and precision: its least time, and the part of each kind."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    batch, rows = drawn_batch(options, device), []
    for name, stage in stages(options).items():
        stage.to(device).train()
        optimizer = torch.optim.SGD([p for p in stage.parameters() if p.requires_grad], lr=1e-4)
        for mixed in (False, True):
            step(stage, batch, optimizer, mixed)  # the first one compiles
            least = min(step(stage, batch, optimizer, mixed) for _ in range(options.steps))
            activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
            with profile(activities=activities, record_shapes=True) as seen:
                whole = sum(step(stage, batch, optimizer, mixed) for _ in range(options.steps))
            took = dict.fromkeys(KINDS, 0.0)
            for event in seen.key_averages(group_by_input_shape=True):
                if event.device_type != DeviceType.CPU:  # a kernel, which its operation counts as well
                    continue
                own = event.self_device_time_total if device.type == "cuda" else event.self_cpu_time_total
                took[kind(event.key, event.input_shapes)] += own / 1e6
            took["all else"] += max(0.0, whole - sum(took.values()))
            shares = {what: seconds / sum(took.values()) * least for what, seconds in took.items()}
            rows.append({"step": name, "precision": "bf16-mixed" if mixed else "32-true", "seconds": least, **shares})
    return rows


def plot(files: list[Path], path: Path) -> None:
    """A bar for each step, precision and file, in seconds."""
    from matplotlib.figure import Figure

    found = {file.stem: json.loads(file.read_text())["rows"] for file in files}
    pairs = [(row["step"], row["precision"]) for row in found[files[-1].stem]]
    bars = [
        (f"{name}, {precision}: {when}", row)
        for name, precision in pairs
        for when, rows in found.items()
        for row in rows
        if (row["step"], row["precision"]) == (name, precision)
    ]
    figure = Figure(figsize=(8, 0.6 + 0.28 * len(bars)), layout="constrained")
    axes = figure.subplots()
    labels, left = [label for label, _ in bars], [0.0] * len(bars)
    for what, colour in KINDS.items():
        widths = [row[what] for _, row in bars]
        axes.barh(labels, widths, left=left, color=colour, label=what)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds a step")
    figure.legend(loc="outside upper center", ncols=len(KINDS), fontsize="small")
    figure.savefig(path, dpi=120)


def main() -> None:
    """Profile the steps, or draw what was measured before."""
    parser = step_options(__doc__)
    parser.add_argument("--plot", type=Path, help="file for the picture of --shown")
    parser.add_argument("--shown", type=Path, nargs="+", default=[], help="files of --json, in the order of time")
    options = parser.parse_args()
    if options.plot:
        if len({file.stem for file in options.shown}) < len(options.shown):
            parser.error("--shown: expected files of different names")
        if not options.shown:
            parser.error("--plot: expected the files to draw, with --shown")
        plot(options.shown, options.plot)
        return
    if options.threads:
        torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")  # the stages log without a trainer
    report("training steps by kind of operation, seconds", measured(options), options)


if __name__ == "__main__":
    main()
