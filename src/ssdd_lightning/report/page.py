"""The page: one template, and the values that it shows, so written that no name can become code."""

import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

_UNSAFE = str.maketrans({character: f"\\u{ord(character):04x}" for character in "<>&"})


def page(title: str, content: Mapping[str, Any]) -> str:
    """Fill the template.

    The page may load its own pictures and nothing else, and run the template's script and nothing else: a policy in its
    head, which browsers obey, says so and names the script by its digest.

    Args:
        title: Of the window.
        content: Plain values.
    """
    template = (files("ssdd_lightning.report") / "page.html").read_text(encoding="utf-8")
    script = template.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    # half characters, which names of files may hold, have no UTF-8
    safe_title = html.escape(title).encode("utf-8", "replace").decode()
    values = {"TITLE": safe_title, "POLICY": policy, "DATA": to_json(content)}
    return re.sub("%%([A-Z]+)%%", lambda found: values[found[1]], template)


def to_json(content: object) -> str:
    """JSON in ASCII that may stand in a script element: no character of it opens or closes anything."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).translate(_UNSAFE)
