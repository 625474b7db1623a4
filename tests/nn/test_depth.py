import pytest
import torch

from ssdd_lightning.nn import Backbone
from ssdd_lightning.nn.depth import decay_exceptions, layer_depths
from tests.helpers.transformers import cut_down


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_vit", ["patch_embed.proj.weight", *(f"blocks.{i}.mlp.fc1.weight" for i in range(4))]),
        ("eva02_tiny_patch14_224", ["patch_embed.proj.weight", *(f"blocks.{i}.attn.proj.weight" for i in range(4))]),
        (
            "swin_tiny_patch4_window7_224",
            ["patch_embed.proj.weight", *(f"layers.{i}.blocks.0.norm1.bias" for i in range(4))],
        ),
        ("hiera_tiny_224", ["patch_embed.proj.weight", *(f"blocks.{i}.attn.proj.weight" for i in range(5))]),
        ("convnext_atto", ["stem_0.weight", *(f"stages_{i}.blocks.0.gamma" for i in range(4))]),
        ("resnet18", ["conv1.weight", *(f"layer{i}.0.conv1.weight" for i in range(1, 5))]),
        ("resnet38", ["conv1a.weight", *(f"b{i}.conv_branch2a.weight" for i in range(2, 8))]),
    ],
)
def test_layers_are_numbered_from_the_image_on(name: str, layers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    cut_down(monkeypatch)
    with torch.device("meta") if name == "resnet38" else torch.device("cpu"):
        backbone = Backbone(name, 8 if name == "resnet38" else 32, conv_head=True)
    depths = layer_depths(backbone)
    assert depths.keys() == dict(backbone.model.named_parameters()).keys()
    assert [depths[layer] for layer in layers] == list(range(len(layers)))
    assert max(depths.values()) == len(layers) - 1, "a last normalisation is as deep as the last layer"


def test_positions_and_tokens_are_the_first_layer_and_do_not_decay() -> None:
    backbone = Backbone("test_vit")
    depths = layer_depths(backbone)
    assert depths["pos_embed"] == depths["cls_token"] == 0
    assert {"pos_embed", "cls_token"} <= decay_exceptions(backbone)
    assert decay_exceptions(Backbone("resnet18")) == set()


def test_what_follows_the_last_block_is_deepest() -> None:
    backbone = Backbone("tf_efficientnet_lite0", 32, conv_head=True)
    depths = layer_depths(backbone)
    assert depths["conv_head.weight"] == depths["blocks.6.0.conv_pwl.weight"] == max(depths.values())
