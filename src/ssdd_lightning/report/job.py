"""Make a report: pictures and measures of every image, each once, and the page."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.folder import read_prediction
from ssdd_lightning.report.material import ADVICE, DIFFERENCES, KNOWLEDGE, ORACLE, PREDICTION, REFINED, Masks, Material
from ssdd_lightning.report.measures import measure_image, plain_scores, read_measures, total
from ssdd_lightning.report.page import page, to_json
from ssdd_lightning.report.pictures import (
    QUALITY,
    SIDE,
    css_colours,
    picture_size,
    write_difference,
    write_layer,
    write_photo,
)
from ssdd_lightning.storage.files import write_text
from ssdd_lightning.storage.fingerprints import digest_of
from ssdd_lightning.storage.ledger import Item, Ledger, Recipe
from ssdd_lightning.storage.lock import locked
from ssdd_lightning.storage.masks import read_image, read_mask
from ssdd_lightning.storage.threads import cores

PHOTO = "photo"
FORMAT = 1
"""Raised when pictures or measures change, so that those of an earlier version are made again."""
Measures = dict[str, dict[str, Any]]
"""What `measure_image` said, by image."""


@dataclass(frozen=True)
class ReportJob:
    """One report.

    Args:
        material: What it shows.
        out: Folder for `index.html`, `pictures` and `measures`.

    Raises:
        InputError: There is nothing to show, or the report would be written into what it reads.
    """

    material: Material
    out: Path

    def __post_init__(self) -> None:
        read = [self.material.images, self.material.truth, *(masks.folder for masks in self.material.masks)]
        if any(folder is not None and folder.resolve() == self.out.resolve() for folder in read):
            raise InputError(f"the report would be written into {self.out}, which it reads; choose another --out.")
        if not self.material.photos:
            raise InputError("there is no image to report: the list and the folders of masks have none in common.")

    def run(self, progress: bool = True) -> Path:
        """Make what is missing or stale, and the page.

        Returns:
            The page.

        Raises:
            InputError: A file is damaged, sizes differ, or another report is being written there.
        """
        with locked(self.out):
            classes = sorted(self.material.class_names)
            settings = {"format": FORMAT, "side": SIDE, "quality": QUALITY, "classes": classes}
            ledger = Ledger(self.out, "report", Recipe(settings), self._items)
            ledger.make_each(self._make_one, cores(), progress)
            index = self.out / "index.html"
            write_text(index, page(self.material.title, self.content()))
        return index

    @cached_property
    def _layers(self) -> dict[str, dict[str, Path]]:
        """Files of each image by layer."""
        return {name: self.material.layers(name) for name in self.material.photos}

    @cached_property
    def _items(self) -> dict[str, Item]:
        changing = str(self.material.changing)
        items = {}
        for name, photo in self.material.photos.items():
            layers = self._layers[name]
            written = (self._measures(name), *(self._picture(name, layer) for layer in (PHOTO, *layers)))
            items[name] = Item((photo, *layers.values()), written, " ".join((*layers, changing)))
        return items

    def _make_one(self, name: str) -> None:
        photo, layers = read_image(self.material.photos[name]), self._layers[name]
        size = picture_size(*photo.shape[:2])
        measures = measure_image(self.material, name, layers)
        write_photo(self._picture(name, PHOTO), photo, size)
        for layer, path in layers.items():
            if layer in DIFFERENCES:
                write_difference(self._picture(name, layer), read_mask(path), size)
            else:
                write_layer(self._picture(name, layer), read_prediction(path.parent, name), size)
        write_text(self._measures(name), to_json({**measures, "size": size}))

    def _picture(self, name: str, layer: str) -> Path:
        suffix = ".jpg" if layer == PHOTO or layer in DIFFERENCES else ".png"
        return self.out / "pictures" / layer / (_identity(name) + suffix)

    def _measures(self, name: str) -> Path:
        return self.out / "measures" / f"{_identity(name)}.json"

    def content(self) -> dict[str, Any]:
        """Everything that the page knows, as plain values."""
        material = self.material
        measures = {name: read_measures(self._measures(name)) for name in material.photos}
        shown = {index for one in measures.values() for index in one["classes"]}
        shown |= {t for one in measures.values() for pairs in one["confusion"].values() for t, _, _ in pairs}
        notes = list(material.notes)
        if material.without_photo:
            notes.append(f"{material.without_photo} images have a mask and no photo in {material.images}: left out.")
        return {
            "title": material.title,
            "facts": [*material.facts, ("images in this report", str(len(measures)))],
            "steps": material.steps,
            "stages": self._stages(measures),
            "curves": [curve._asdict() for curve in material.curves],
            "classes": material.class_names,
            "colours": css_colours(material.class_names),
            "shown": sorted(shown - {0}),
            "layers": self._titles(),
            "changing": material.changing,
            "images": [self._image(name, one) for name, one in measures.items()],
            "notes": notes,
        }

    def _stages(self, measures: Measures) -> list[dict[str, Any]]:
        """Rows of the table: masks, split, number of images, scores and seconds."""
        rows = [self._row(masks, masks.key, masks.title, masks.seconds, measures) for masks in self.material.masks]
        keys = [row["key"] for row in rows]
        if KNOWLEDGE in keys and ADVICE in keys:
            knowledge = self.material.masks[keys.index(KNOWLEDGE)]
            oracle = self._row(knowledge, ORACLE, "oracle merge of K and A", None, measures)
            place = 1 + max(keys.index(key) for key in (KNOWLEDGE, ADVICE, REFINED) if key in keys)
            rows[place:place] = [oracle] if "miou" in oracle else []
        return rows

    def _row(self, masks: Masks, key: str, title: str, seconds: float | None, measures: Measures) -> dict[str, Any]:
        names = [name for name in masks.names if name in measures]
        row = {"key": key, "title": title, "split": masks.split, "seconds": seconds, "images": len(names)}
        return {**row, **self._scores(key, names, measures)}

    def _scores(self, key: str, names: list[str], measures: Measures) -> dict[str, Any]:
        """Scores of the images that have ground truth; nothing where none has."""
        scored = [measures[name]["confusion"][key] for name in names if key in measures[name]["confusion"]]
        if not scored:
            return {}
        return {**plain_scores(total(scored, self.material.class_names, len(scored))), "scored": len(scored)}

    def _image(self, name: str, measures: dict[str, Any]) -> dict[str, Any]:
        cards = {key: total([pairs], self.material.class_names, 1) for key, pairs in measures["confusion"].items()}
        scores = {key: plain_scores(card) for key, card in cards.items() if key != ORACLE}
        return {
            "id": _identity(name),
            "name": name,
            "size": measures["size"],
            "layers": [PHOTO, *self._layers[name]],
            "classes": measures["classes"],
            "changed": measures["changed"],
            "scores": {key: {"miou": one["miou"], "iou": one["iou"]} for key, one in scores.items()},
        }

    def _titles(self) -> list[dict[str, str]]:
        """Layers in the order of the keys 1 to 9."""
        used = {layer for layers in self._layers.values() for layer in layers}
        titles = {PHOTO: "photo", "truth": "ground truth", **DIFFERENCES}
        titles |= {masks.key: masks.title for masks in self.material.masks}
        first = (PHOTO, KNOWLEDGE, ADVICE, *DIFFERENCES, REFINED, PREDICTION, "truth")
        kinds = {PHOTO: "photo", **dict.fromkeys(DIFFERENCES, "difference")}
        return [
            {"key": key, "title": titles[key], "kind": kinds.get(key, "mask"), "suffix": self._picture("", key).suffix}
            for key in dict.fromkeys((*first, *titles))
            if key == PHOTO or key in used
        ]


def _identity(name: str) -> str:
    """What an image's files are called: 16 hexadecimal digits, which every file system and browser takes."""
    return digest_of([name])[:16]
