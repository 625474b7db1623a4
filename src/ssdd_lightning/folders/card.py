"""What a run's records say of a checkpoint, as text for a model card."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssdd_lightning.stages.base import CLASSES_KEY, SCORES_KEY
from ssdd_lightning.storage.fingerprints import fingerprint
from ssdd_lightning.storage.safe_torch import load_torch


def run_record(checkpoint: Path) -> str:
    """Describe in Markdown how a checkpoint was trained: stage, data, labels, classes and scores.

    The checkpoint itself says the stage, its settings, the classes and the last validation's scores. The ledger's
    entries of its run, `fit.json` and `test/test.json`, say the data and the score of a test; a checkpoint that was
    moved elsewhere goes without them.

    Args:
        checkpoint: A checkpoint of `ssdd fit`, where the run wrote it.
    """
    content = load_torch(checkpoint, mmap=True)
    run = checkpoint.resolve().parent.parent
    return "\n".join([*_training(content), *_data(run, content), *_scores(run, checkpoint, content)]) + "\n"


def _training(content: Mapping[str, Any]) -> Iterator[str]:
    settings = content.get("hyper_parameters") or {}
    yield from ("## Training", "")
    yield f"- Stage: `{str(settings.get('_class_path', 'unknown')).rpartition('.')[2]}`"
    if "global_step" in content:
        yield f"- Length: {content['epoch'] + 1} epochs, {content['global_step']} steps"
    yield "- Supervision: image-level labels; ground truth masks were used for scores only"
    own = {name: value for name, value in settings.items() if not name.startswith("_")}
    yield from ("", "```json", json.dumps(own, indent=2, default=str), "```", "")


def _data(run: Path, content: Mapping[str, Any]) -> Iterator[str]:
    classes = content.get(CLASSES_KEY) or {"names": [], "indices": []}
    yield from ("## Data", "")
    shown = [f"{index} {classes['names'][index]}" for index in classes["indices"]]
    yield f"- Classes, by the dataset's indices, in the order of the outputs: {', '.join(shown) or 'not recorded'}"
    entry = _entry(run / "fit.json")
    for name, digest in sorted(entry.get("inputs", {}).items()):
        yield f"- Fingerprint of {name}: `{digest}`"
    options = entry.get("settings", {}).get("data") or {}
    yield from (f"- data.{name}: `{json.dumps(value)}`" for name, value in sorted(options.items()) if value is not None)
    if entry:
        yield f"- Trained by ssdd_lightning {entry['version']}, begun {entry['started']}"
    yield ""


def _scores(run: Path, checkpoint: Path, content: Mapping[str, Any]) -> Iterator[str]:
    test = _entry(run / "test" / "test.json")
    own = test.get("finished") and test["inputs"].get("the checkpoint") == fingerprint(checkpoint)
    scores = {**(content.get(SCORES_KEY) or {}), **(test["results"].get("scores", {}) if own else {})}
    yield from ("## Scores", "")
    if not scores:
        yield "None is recorded."
        return
    yield from ("| score | value |", "| --- | --- |")
    yield from (f"| {name} | {value:.4f} |" for name, value in scores.items())
    if own:
        yield from (
            "",
            f"Protocol of the test: `{json.dumps(test['settings']['protocol'])}`; {test['settings']['note']}.",
        )


def _entry(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}
