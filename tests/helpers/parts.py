"""Folders of everything that the commands on files read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssdd_lightning.callbacks.writers import write_difference
from ssdd_lightning.storage.masks import read_mask, write_mask
from ssdd_lightning.storage.score_maps import map_path, write_map


def write_parts(root: Path, truth: Path, names: Sequence[str]) -> dict[str, list[int]]:
    """Write knowledge K, advice A, score maps, difference maps and PSA's activation maps, made of ground truth masks.

    Returns:
        The classes of each image.
    """
    rng, labels = np.random.default_rng(0), {}
    (root / "psa").mkdir()
    for name in names:
        mask = read_mask(truth / f"{name}.png")
        labels[name] = [value for value in np.unique(mask).tolist() if value not in (0, 255)]
        write_mask(root / "K" / f"{name}.png", mask)
        write_mask(root / "A" / f"{name}.png", mask[:, ::-1].copy())
        scores = np.stack([mask == value for value in (0, *labels[name])]) * 0.8 + 0.1
        write_map(map_path(root / "maps", name), [0, *labels[name]], scores)
        for what in ("d_knowledge", "d_advice"):
            write_difference(root / "seeds" / what / f"{name}.png", rng.random(mask.shape))
        cams: Any = {index - 1: score.astype(np.float32) for index, score in zip(labels[name], scores[1:], strict=True)}
        np.save(root / "psa" / f"{name}.npy", cams, allow_pickle=True)
    return labels
