from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.report.job import ReportJob
from ssdd_lightning.report.material import FolderOptions, folder_material
from ssdd_lightning.storage.masks import write_mask

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)<!--",
    "\"quotes' & %41 #1 ?x",
    "größe 猫 \U0001f408",
    "%%DATA%%",
)


class Folders:
    """Photos, knowledge, advice, predictions with difference maps, and ground truth, all drawn by chance."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.out = root / "report"
        self.rng = np.random.default_rng(0)

    def add(self, name: str, size: tuple[int, int] = (30, 40), right: float = 0.5, truth: bool = True) -> None:
        """An image of which a cat fills the left half; a share of it is predicted."""
        height, width = size
        photo = self.rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        self.photo(name).parent.mkdir(exist_ok=True)
        Image.fromarray(photo).save(self.photo(name))
        for folder, share in {"knowledge": 0.2, "advice": 0.9, "predictions": right, "truth": 1.0}.items():
            mask = np.zeros(size, np.uint8)
            mask[:, : round(share * width / 2)] = 8
            if folder != "truth" or truth:
                write_mask(self.root / folder / f"{name}.png", mask)
        for key in ("d_knowledge", "d_advice"):
            (self.root / "predictions" / key).mkdir(exist_ok=True)
            values = self.rng.integers(0, 255, size, dtype=np.uint8)
            Image.fromarray(values).save(self.root / "predictions" / key / f"{name}.png")

    def photo(self, name: str) -> Path:
        return self.root / "photos" / f"{name}.jpg"

    def job(self, **changed: Path | None) -> ReportJob:
        folders = {key: self.root / key for key in ("truth", "knowledge", "advice")}
        options = FolderOptions(**{"images": self.root / "photos", **folders, **changed})
        return ReportJob(folder_material(self.root / "predictions", options), self.out)

    def times(self) -> dict[str, int]:
        """When each file of the report was written."""
        files = (
            path for path in self.out.rglob("*") if path.suffix in (".jpg", ".png") or path.parent.name == "measures"
        )
        return {str(path.relative_to(self.out)): path.stat().st_mtime_ns for path in files}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


@pytest.fixture
def three(folders: Folders) -> Folders:
    for name, right in (("a", 0.9), ("b", 0.1), ("c", 0.5)):
        folders.add(name, right=right)
    return folders


@pytest.fixture
def images_of() -> Callable[[ReportJob], dict[str, dict[str, object]]]:
    return lambda job: {image["name"]: image for image in job.content()["images"]}
