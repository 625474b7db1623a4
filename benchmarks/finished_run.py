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

from ssdd_lightning.pipeline.photos import GivenData
from ssdd_lightning.pipeline.run import Pipeline, RunOptions

EXPERIMENT = Path(__file__).parents[1] / "experiments" / "quickstart"
PRODUCTS = ("knowledge", "advice", "static/predictions")
TESTS = ("baseline_seeds/test", "dynamic/test")
ENTRIES = ("knowledge/predict", "advice/crf", "static/predictions/predict", *(f"{folder}/test" for folder in TESTS))


def main() -> None:
    """Write the files, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=12_000)
    photos: int = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        root, out = Path(folder) / "devkit", Path(folder) / "out"
        write_devkit(root / "VOCdevkit" / "VOC2012", [f"2007_{number:06d}" for number in range(photos)])
        write_products(out, [f"2007_{number:06d}" for number in range(photos)])
        Pipeline(RunOptions(EXPERIMENT, out, GivenData(root))).ledger().settle()
        words = [sys.executable, "-m", "ssdd_lightning", "run", str(EXPERIMENT), f"--root={root}", f"--out={out}"]
        for attempt in (1, 2):
            start = time.perf_counter()
            said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
            assert said.startswith("run: finished in"), said
            print(f"{photos} photos, attempt {attempt}: {time.perf_counter() - start:.1f} s")


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


def write_products(out: Path, names: list[str]) -> None:
    """What the steps of a run leave: an entry each, checkpoints, score maps, masks and difference maps."""
    some = len(names) // 8
    folders = {
        folder: names[:-some] for folder in (*PRODUCTS, "static/predictions/d_knowledge", "static/predictions/d_advice")
    }
    folders |= {folder: names[-some:] for folder in TESTS}
    for folder, chosen in folders.items():
        (out / folder).mkdir(parents=True)
        for name in chosen:
            (out / folder / f"{name}.png").write_text(name)
    for stage in ("classification", "static", "baseline_seeds", "dynamic"):
        (out / stage / "checkpoints").mkdir(parents=True)
        (out / stage / "checkpoints" / "last.ckpt").write_text(stage)
        (out / stage / "fit.json").write_text("{}")
    for entry in ENTRIES:
        (out / f"{entry}.json").write_text("{}")
    row = {"what": "knowledge K", "split": "train", "miou": 0.5, "coverage": 1.0, "seconds": 1.0}
    (out / "results.json").write_text(json.dumps([row]))


if __name__ == "__main__":
    main()
