"""A network goes to the hub and comes back by huggingface_hub's own client, against a hub on this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.hub import Hub

PROGRAM = """
import torch
from ssdd_lightning import SegmentationNetwork

network = SegmentationNetwork(3, "test_efficientnet", head_channels=8, dilation=2).eval()
with torch.no_grad():
    for tensor in network.state_dict().values():  # also those that start as zeros and ones
        tensor.copy_(torch.rand(tensor.shape) + 0.5)
card = {"license": "cc-by-nc-4.0", "record": "Trained on two photos."}
network.push_to_hub("me/voc", model_card_kwargs=card)
again = SegmentationNetwork.from_pretrained("me/voc").eval()
weights, loaded = network.state_dict(), again.state_dict()
assert weights.keys() == loaded.keys()
assert all(torch.equal(weights[name], loaded[name]) for name in weights)
image = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
with torch.no_grad():
    torch.testing.assert_close(again(image), network(image))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_weights_settings_and_card_survive_the_hub(hub: Hub, tmp_path: Path) -> None:
    # the address is read when huggingface_hub is imported
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_TOKEN": "nobody's", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, **own}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    files = {name.removeprefix("me/voc/resolve/main/"): content for name, content in hub.files.items()}
    assert sorted(files) == ["README.md", "config.json", "model.safetensors"]
    card = files["README.md"].decode()
    assert "\nlicense: cc-by-nc-4.0\n" in card
    assert "Trained on two photos." in card
    settings = json.loads(files["config.json"])
    assert (settings["num_classes"], settings["backbone"]) == (3, "test_efficientnet")
