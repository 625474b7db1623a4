"""How long `ssdd run` takes to find that a finished run over many photos is finished.

    python benchmarks/finished_run.py --photos 12000

Writes a devkit and the files of a finished run into a temporary folder (small files; the ledger looks at sizes and
times), notes the run as finished, and times two fresh processes of `ssdd run`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import report

from ssdd_lightning.pipeline.photos import GivenData
from ssdd_lightning.pipeline.run import Pipeline, RunOptions

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart"


def main() -> None:
    """Write the files, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=12_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    names = [f"2007_{number:06d}" for number in range(options.photos)]
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "devkit", Path(folder) / "out"
        write_devkit(root / "VOCdevkit" / "VOC2012", names)
        pipeline = Pipeline(RunOptions(EXPERIMENT, out, GivenData(root)))
        write_products(pipeline, names)
        pipeline.ledger().settle()
        words = [sys.executable, "-m", "ssdd_lightning", "run", str(EXPERIMENT), f"--root={root}", f"--out={out}"]
        rows = []
        for attempt in (1, 2):
            start = time.perf_counter()
            said = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            assert said.startswith("run: finished in"), said
            rows.append({"photos": len(names), "attempt": attempt, "seconds": time.perf_counter() - start})
    report("finding that a run is finished", rows, options)


def write_devkit(devkit: Path, names: list[str]) -> None:
    """Photos, annotations, ground truth and lists; an eighth of the photos each for train and val."""
    some = len(names) // 8
    lists = {"trainaug": names[:-some], "train": names[:some], "val": names[-some:]}
    for kind in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
        (devkit / kind).mkdir(parents=True)
    for name in names:
        for path in (f"JPEGImages/{name}.jpg", f"Annotations/{name}.xml", f"SegmentationClass/{name}.png"):
            (devkit / path).write_text(name)
    for split, chosen in lists.items():
        (devkit / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(chosen))


def write_products(pipeline: Pipeline, names: list[str]) -> None:
    """What the steps of a run leave: an entry each, checkpoints, score maps, masks and difference maps."""
    some = len(names) // 8
    for step in pipeline.steps:
        folders = ["checkpoints"] if step.command == "fit" else [""]
        folders += ["d_knowledge", "d_advice"] if step.folder == pipeline.seeds else []
        files = [f"{name}.png" for name in (names[-some:] if step.command == "test" else names[:-some])]
        for folder in folders:
            (step.folder / folder).mkdir(parents=True)
            for file in ["last.ckpt"] if step.command == "fit" else files:
                (step.folder / folder / file).write_text(step.name)
        step.entry.write_text("{}")
    row = {"what": "knowledge K", "split": "train", "miou": 0.5, "coverage": 1.0, "seconds": 1.0}
    (pipeline.out / "results.json").write_text(json.dumps([row]))


if __name__ == "__main__":
    main()
