"""The authors' heads, written out from their description with batch norms of eps 0.001, against ours after loading."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import DDNet
from ssdd_lightning.nn.segmentation import LargeFOVHead
from ssdd_lightning.weights import load_weights, read_weights

C, WIDTH, HIGH, LOW = 4, 8, 6, 5


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def norm_tensors(name: str, channels: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.weight": 1 + 0.3 * torch.randn(channels),
        f"{name}.bias": torch.randn(channels),
        f"{name}.running_mean": torch.randn(channels),
        f"{name}.running_var": 0.002 * torch.rand(channels),  # so small that eps matters
        f"{name}.num_batches_tracked": torch.tensor(7),
    }


def seg_tensors(name: str, channels_in: int) -> dict[str, torch.Tensor]:
    return {
        f"{name}.seg1.conv1.weight": torch.randn(HIGH, channels_in, 3, 3),
        f"{name}.seg1.conv1.bias": torch.randn(HIGH),
        **norm_tensors(f"{name}.seg1.bn1", HIGH),
        f"{name}.seg2.weight": torch.randn(C, HIGH, 3, 3),
        f"{name}.seg2.bias": torch.randn(C),
    }


def dd_tensors(index: int) -> dict[str, torch.Tensor]:
    block = f"dd{index}.conv1abc"
    return {
        f"dd_head{index}.conv1ab.conv1.weight": torch.randn(WIDTH, HIGH + LOW, 3, 3),
        **norm_tensors(f"dd_head{index}.conv1ab.bn1", WIDTH),
        f"dd{index}.conv1c.conv1.weight": torch.randn(WIDTH, C, 1, 1),
        **norm_tensors(f"dd{index}.conv1c.bn1", WIDTH),
        f"{block}.conv1.weight": torch.randn(WIDTH, 2 * WIDTH, 1, 1),
        f"{block}.conv2.weight": torch.randn(WIDTH, WIDTH, 3, 3),
        f"{block}.conv3.weight": torch.randn(WIDTH, WIDTH, 1, 1),
        f"{block}.downsample.weight": torch.randn(WIDTH, 2 * WIDTH, 1, 1),
        **{k: v for bn in ("bn1", "bn2", "bn3", "bnd") for k, v in norm_tensors(f"{block}.{bn}", WIDTH).items()},
        f"dd{index}.pred_abc.weight": torch.randn(1, WIDTH, 1, 1),
    }


def norm(t: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> torch.Tensor:
    mean, variance, scale, shift = (t[f"{name}.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, variance, scale, shift, training=False, eps=1e-3)


def reflected(x: torch.Tensor, n: int) -> torch.Tensor:
    return F.pad(x, (n,) * 4, mode="reflect")


def seg_forward(t: dict[str, torch.Tensor], x: torch.Tensor, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    y = F.conv2d(reflected(x, 12), t[f"{name}.seg1.conv1.weight"], t[f"{name}.seg1.conv1.bias"], dilation=12)
    high = norm(t, y, f"{name}.seg1.bn1").relu()
    return high, F.conv2d(reflected(high, 12), t[f"{name}.seg2.weight"], t[f"{name}.seg2.bias"], dilation=12)


def dd_forward(
    t: dict[str, torch.Tensor], high: torch.Tensor, low: torch.Tensor, one_hot: torch.Tensor, i: int
) -> torch.Tensor:
    x = F.conv2d(reflected(torch.cat((high, low), 1), 1), t[f"dd_head{i}.conv1ab.conv1.weight"])
    x = norm(t, x, f"dd_head{i}.conv1ab.bn1").relu()
    mask = norm(t, F.conv2d(one_hot, t[f"dd{i}.conv1c.conv1.weight"]), f"dd{i}.conv1c.bn1").relu()
    x, block = torch.cat((x, mask), 1), f"dd{i}.conv1abc"
    y = norm(t, F.conv2d(x, t[f"{block}.conv1.weight"]), f"{block}.bn1").relu()
    y = norm(t, F.conv2d(reflected(y, 1), t[f"{block}.conv2.weight"]), f"{block}.bn2").relu()
    y = norm(t, F.conv2d(y, t[f"{block}.conv3.weight"]), f"{block}.bn3")
    y = (y + norm(t, F.conv2d(x, t[f"{block}.downsample.weight"]), f"{block}.bnd")).relu()
    return F.conv2d(y, t[f"dd{i}.pred_abc.weight"])


def saved(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    torch.save({f"module.{k}": v for k, v in tensors.items()}, path)
    return path


@pytest.mark.parity
@pytest.mark.parametrize(
    ("theirs", "part"), [("seg", "network.head."), ("seg_main", "network.head."), ("seg_sub", "sub_head.")]
)
@torch.no_grad()
def test_the_authors_segmentation_head_computes_the_same_here(tmp_path: Path, theirs: str, part: str) -> None:
    tensors, x = seg_tensors(theirs, 16), torch.randn(2, 16, 14, 15)
    head = LargeFOVHead([3, 16], C, HIGH, dilation=12).eval()
    report = load_weights(head, saved(tmp_path / "seg.pth", tensors), part, required="")
    assert (report.skipped, report.missing) == ({}, [])
    for ours, expected in zip(head([x]), seg_forward(tensors, x, theirs), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("files", "part", "index"),
    [((0,), "ssdd.ddnet.", 0), ((0, 1), "ssdd1.ddnet.", 0), ((0, 1), "ssdd2.ddnet.", 1)],
)
@torch.no_grad()
def test_the_authors_dd_net_computes_the_same_here(
    tmp_path: Path, files: tuple[int, ...], part: str, index: int
) -> None:
    tensors = {k: v for i in files for k, v in dd_tensors(i).items()}
    ddnet = DDNet(C, HIGH, LOW, WIDTH).eval()
    report = load_weights(ddnet, saved(tmp_path / "ssdd.pth", tensors), part, required="")
    assert report.missing == []
    assert all(name.startswith("ssdd") for name in report.skipped)
    high, low, mask = torch.randn(2, HIGH, 7, 9), torch.randn(2, LOW, 7, 9), torch.randint(0, C, (2, 7, 9))
    one_hot = F.one_hot(mask, C).permute(0, 3, 1, 2).float()
    ours = ddnet(ddnet.image_features(high, low, (7, 9)), mask)
    torch.testing.assert_close(ours, dd_forward(tensors, high, low, one_hot, index), rtol=1e-3, atol=1e-3)


def test_names_of_a_dynamic_checkpoint(tmp_path: Path) -> None:
    tensors = {**seg_tensors("seg_main", 16), **seg_tensors("seg_sub", 16), "encoder.conv1a.weight": torch.ones(1)}
    names = set(read_weights(saved(tmp_path / "seg.pth", tensors)))
    heads = {f"{part}.{k}" for part in ("network.head", "sub_head") for k in LargeFOVHead([16], C, HIGH).state_dict()}
    assert names == heads | {"network.backbone.encoder.conv1a.weight"}


@pytest.mark.parametrize(
    ("mean", "bias"),
    [(torch.zeros(5), torch.zeros(7)), (torch.zeros(1 << 15, 1), torch.zeros(1 << 15)), (torch.zeros(5) > 0,) * 2],
    ids=["two shapes", "a square of four gigabytes", "no numbers"],
)
def test_a_mean_and_a_bias_that_do_not_fit(tmp_path: Path, mean: torch.Tensor, bias: torch.Tensor) -> None:
    content = {"seg_main.seg1.bn1.running_mean": mean, "seg_main.seg1.conv1.bias": bias}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(InputError, match=r"seg_main\.seg1\.bn1\.running_mean is \(.*\) of .*, the bias before it"):
        read_weights(tmp_path / "x.pth")
