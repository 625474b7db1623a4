"""What an examination found, as text and as JSON."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ssdd_lightning.evaluation.text_table import text_table

CHECKS = {
    "list": "lists that cannot be read, repeat names, lead elsewhere or contradict each other",
    "count": "splits of another size than the official one",
    "image missing": "listed images without a photo",
    "image unreadable": "photos that are truncated or damaged",
    "mask missing": "listed images without a mask",
    "mask unreadable": "masks that are damaged or hold colours instead of indices",
    "mask size": "masks of another size than their photo",
    "mask palette": "masks whose colours are not the VOC palette's",
    "mask values": "masks with values that are no class and not 255",
    "label missing": "listed images without image-level labels",
    "label wrong": "annotations or a label file that cannot be read, or images with labels of no class",
    "label of mask": "images whose mask shows a class that their labels lack",
    "label without photo": "names in the label file without a photo",
    "overlap": "images in two splits that should have none in common",
    "same photo": "photos in two such splits under different names",
}
"""Every check and what it counts."""
SHOWN = 5


@dataclass(frozen=True)
class Report:
    """The result of `examine`.

    Args:
        devkit: Folder examined.
        splits: Split -> number of images.
        official: Split -> how many it should have; empty if unknown.
        labels: Where the labels come from.
        findings: Check -> what is wrong, one entry per file, name or list.
        notes: What else to know; no fault.
    """

    devkit: str
    splits: Mapping[str, int]
    official: Mapping[str, int]
    labels: str
    findings: Mapping[str, list[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not any(self.findings.values())

    def to_json(self) -> str:
        """All of it, with every entry."""
        return json.dumps({**vars(self), "healthy": self.healthy}, indent=2)

    def table(self) -> str:
        """Splits, checks, and the first few entries of what was found."""
        splits = [[split, str(count), str(self.official.get(split, ""))] for split, count in self.splits.items()]
        checks = [[check, str(len(self.findings.get(check, ()))), meaning] for check, meaning in CHECKS.items()]
        lines = [f"{self.devkit}, labels: {self.labels}", "", text_table(["split", "images", "official"], splits)]
        lines += ["", text_table(["check", "found", "what is counted"], checks, left=(0, 2))]
        for check, entries in self.findings.items():
            more = f"\n  ... and {len(entries) - SHOWN} more" if len(entries) > SHOWN else ""
            lines += ["", f"{check}:", *(f"  {entry}" for entry in entries[:SHOWN])]
            lines[-1] += more
        lines += ["", *(f"note: {note}" for note in self.notes)] if self.notes else []
        count = sum(map(len, self.findings.values()))
        verdict = f"{count} finding{'s' if count > 1 else ''}" if count else "nothing is wrong"
        return "\n".join([*lines, "", verdict])


def collect(found: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Sort (check, entry) pairs by check, in the order of `CHECKS`."""
    entries: dict[str, list[str]] = defaultdict(list)
    for check, entry in found:
        entries[check].append(entry)
    return {check: entries[check] for check in CHECKS if check in entries}
