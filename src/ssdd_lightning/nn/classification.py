"""A classifier whose last layer is a 1x1 convolution, so that it yields class activation maps."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from ssdd_lightning.functional.cam import propagate_cam
from ssdd_lightning.nn.backbones import Backbone


class ClassificationNetwork(nn.Module):
    """Backbone, dropout, global pooling and a 1x1 classifier (PSA, CVPR 2018).

    Args:
        num_classes: C, background included; the classifier has C - 1 outputs.
        backbone: "resnet38" or timm's name of the encoder.
        output_stride: 8, 16 or 32, stride of the activation maps.
        dropout: probability of dropping a feature before the classifier.
        freeze_norm: keep the backbone's batch normalisation in eval mode with a frozen affine part, as the authors
            do; false is for a backbone that starts from nothing.
        frozen_layers: names of the backbone's layers that are not trained (PSA: conv1a, b2, b2_1, b2_2).
        checkpointing: save memory in training by computing the backbone's activations again.
        pooling: "average" (PSA) or "max" of the scores of all positions (ToCo, CVPR 2023).
        attention_blocks: spread the activation maps of a plain vision transformer along the mean attention of so many
            of its last blocks (MCTformer, CVPR 2022: all of them); 0 leaves them as they are.

    Raises:
        InputError: for attention blocks that the backbone does not have.

    Examples:
        >>> import torch
        >>> network = ClassificationNetwork(num_classes=21, backbone="test_efficientnet").eval()
        >>> image = torch.zeros(1, 3, 64, 96, dtype=torch.uint8)
        >>> network(image).shape, network.activation_maps(image).shape
        (torch.Size([1, 20]), torch.Size([1, 20, 4, 6]))
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        output_stride: int = 16,
        dropout: float = 0.5,
        freeze_norm: bool = True,
        frozen_layers: Sequence[str] = (),
        checkpointing: bool = False,
        pooling: Literal["average", "max"] = "average",
        attention_blocks: int = 0,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Backbone(backbone, output_stride, freeze_norm, frozen_layers, checkpointing, conv_head=True)
        self.pooling = pooling
        self.attention_blocks = attention_blocks
        if attention_blocks:
            self.backbone.check_attention(attention_blocks)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(self.backbone.channels[-1], num_classes - 1, 1, bias=False)
        nn.init.xavier_uniform_(self.classifier.weight)

    def forward(self, image: Tensor) -> Tensor:
        """Classify images B x 3 x H x W uint8 into logits B x (C-1) of the foreground classes."""
        scores: Tensor = self.classifier(self.dropout(self.backbone(image)[-1]))
        return scores.mean((2, 3)) if self.pooling == "average" else scores.amax((2, 3))

    def activation_maps(self, image: Tensor) -> Tensor:
        """Compute ReLU(classifier) at every position, spread by attention if wanted: B x (C-1) x h x w float >= 0."""
        if not self.attention_blocks:
            return F.relu(self.classifier(self.backbone(image)[-1]))
        features, attention = self.backbone.attend(image, self.attention_blocks)
        return propagate_cam(F.relu(self.classifier(features)), attention)
