"""Valid names of images and classes: one rule each, wherever a name comes from."""

import re
from pathlib import Path

from ssdd_lightning.errors import InputError, shown

LONGEST = 247
"""Bytes of an image name; a file name has 255, and the suffix of score maps needs eight of them."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def name_problem(name: str) -> str | None:
    """Say why a text cannot name an image; None if it can.

    An image's name becomes the name of its masks and score maps, and an entry of lists and label files. So it must not
    lead out of its folder or its line.

    Args:
        name: The name, without folder and without the image's suffix.
    """
    if not name:
        return "is empty"
    if _CONTROL.search(name):
        return "holds a line break or another control character"
    if "/" in name or "\\" in name:
        return "holds a slash or a backslash"
    if name.startswith("."):
        return "begins with a dot"
    if name.endswith(".map"):
        return "ends in .map as the files of score maps do"
    try:
        size = len(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return "holds half a character"
    return f"is longer than {LONGEST} bytes" if size > LONGEST else None


def check_name(name: str, source: Path | str) -> str:
    """Return an image's name unchanged, if it is valid.

    Args:
        name: The name, without folder and without the image's suffix.
        source: Where it comes from, for the message: a label file, a list, a folder.

    Raises:
        InputError: The name is not valid; see `name_problem`.
    """
    problem = name_problem(name)
    if problem is not None:
        raise InputError(f"{source}: the image name {shown(name)} {problem}; rename the image and its entries.")
    return name


def check_class_name(name: str) -> str:
    """Return a class's name unchanged, if it is valid.

    Raises:
        InputError: It is empty, or holds a line break or another control character, so that no list could hold it.
    """
    if not name.strip() or _CONTROL.search(name):
        raise InputError(f"expected class names of one line each, found {shown(name)}; rename the class.")
    return name
