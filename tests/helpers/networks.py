"""Networks as another project would write them: plain torch, no class of ours."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Backbone(nn.Module):
    """Two strided convolutions; what they yield is a dict, so that nobody else can look inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.early = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.late = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        early = F.relu(self.early(image.float() / 255))
        return {"early": early, "late": F.relu(self.late(early))}


class Head(nn.Module):
    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(2 * width, num_classes, 1)

    def forward(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return features["late"], self.classifier(features["late"])


class Segmenter(nn.Module):
    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.num_classes, self.width = num_classes, width
        self.low_channels, self.high_channels = width, 2 * width
        self.backbone = Backbone(width)
        self.head = self.new_head()

    def new_head(self) -> Head:
        return Head(self.width, self.num_classes)

    def low(self, features: dict[str, Tensor]) -> Tensor:
        return features["early"]

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.backbone(image)
        return self.low(features), *self.head(features)


class OwnStart(Segmenter):
    """Loads its starting weights itself."""

    def load_backbone_weights(self, source: str) -> None:
        with torch.no_grad():
            for parameter in self.backbone.parameters():
                parameter.fill_(float(source))


class Headless(nn.Module):
    """Lacks most of what a stage needs."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = nn.Conv2d(3, num_classes, 1)


class Boastful(Segmenter):
    """Its features have fewer channels than it says."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.low_channels = 100


class Classifier(nn.Module):
    def __init__(self, num_classes: int, width: int = 8) -> None:
        super().__init__()
        self.backbone = Backbone(width)
        self.classifier = nn.Conv2d(2 * width, num_classes - 1, 1)

    def activation_maps(self, image: Tensor) -> Tensor:
        return F.relu(self.classifier(self.backbone(image)["late"]))

    def forward(self, image: Tensor) -> Any:
        return self.classifier(self.backbone(image)["late"]).mean((2, 3))


class Affinities(nn.Module):
    radius = 5

    def __init__(self) -> None:
        super().__init__()
        self.backbone = Backbone(8)

    def size(self, image: Tensor) -> tuple[int, int]:
        return -(-image.shape[-2] // 4), -(-image.shape[-1] // 4)

    def forward(self, image: Tensor) -> Tensor:
        from ssdd_lightning.functional import pair_affinity

        return pair_affinity(self.backbone(image)["late"], self.radius)
