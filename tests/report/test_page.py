import base64
import hashlib
import json
import re

import pytest

from ssdd_lightning.report.page import page, to_json


def test_no_character_of_the_values_opens_anything() -> None:
    hostile = {"name": "</script><!--<b>&amp;\u2028%%TITLE%%", "half": "\udc80"}
    text = page("<b>&", {"images": [hostile]})
    data = text.split('id="data">')[1].split("</script>")[0]
    assert not set("<>&\u2028") & set(data)
    assert json.loads(data) == {"images": [hostile]}
    assert "<title>&lt;b&gt;&amp;</title>" in text
    text.encode("utf-8")


def test_a_title_of_half_characters_can_be_written() -> None:
    assert b"<title>caf" in page("caf\udce9", {}).encode("utf-8")


def test_the_policy_names_the_script_and_allows_nothing_else() -> None:
    text = page("run", {})
    script = text.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert f"script-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_values_that_json_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))
