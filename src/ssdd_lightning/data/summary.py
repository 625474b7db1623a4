"""What a run was trained on, in a few plain values."""

from collections import Counter
from typing import Any

from ssdd_lightning.data.datamodule import WeakDataModule
from ssdd_lightning.storage.fingerprints import digest_of, fingerprints


def describe(data: WeakDataModule) -> dict[str, Any]:
    """Describe the phases of a data module that are set up.

    Returns:
        `fingerprint` of the photos and labels, `classes` (names, background first), and `images`: phase -> `all` and
        the name of each class -> number of images.
    """
    images: dict[str, dict[str, int]] = {}
    parts: list[str] = []
    for phase, dataset in sorted(data.datasets.items()):
        counts = Counter(index for record in dataset.records for index in record.labels)
        names = zip(data.class_indices[1:], data.class_names[1:], strict=True)
        images[phase] = {"all": len(dataset.records), **{name: counts[index] for index, name in names}}
        digests = fingerprints([record.image for record in dataset.records])
        parts += [f"{phase} {r.name} {r.labels} {d}" for r, d in zip(dataset.records, digests, strict=True)]
    return {"fingerprint": digest_of(parts), "classes": data.class_names, "images": images}
