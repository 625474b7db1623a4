from pathlib import Path
from typing import Any

import pytest
import torch

from ssdd_lightning.cli.main import main
from ssdd_lightning.errors import InputError
from ssdd_lightning.nn import SSDD, ClassificationNetwork, SegmentationNetwork
from ssdd_lightning.stages import ClassificationModule, StaticRefinementModule
from ssdd_lightning.storage.masks import read_image
from ssdd_lightning.storage.score_maps import read_map
from ssdd_lightning.weights.conversion import convert_weights
from tests.helpers import mxnet
from tests.helpers.weights import meta


def read(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def test_psas_names_stay_in_a_state_dict(res38_cls: Path, tmp_path: Path) -> None:
    report = convert_weights([res38_cls], tmp_path / "out.pth")
    before, after = read(res38_cls), read(tmp_path / "out.pth")
    assert list(before) == list(after)
    assert all(torch.equal(before[k].flatten()[:2], after[k].flatten()[:2]) for k in before)
    assert len(report.loaded) == len(before)


def test_a_checkpoint_fits_the_stage_exactly(res38_cls: Path, tmp_path: Path) -> None:
    convert_weights([res38_cls], tmp_path / "out.ckpt")
    checkpoint = read(tmp_path / "out.ckpt")
    assert checkpoint["pytorch-lightning_version"]

    def network(classes: int) -> ClassificationNetwork:
        return ClassificationNetwork(classes, "resnet38", output_stride=8)

    stage = meta(ClassificationModule, 21, network)
    assert {k: v.shape for k, v in checkpoint["state_dict"].items()} == {
        k: v.shape for k, v in stage.state_dict().items()
    }


def static_files(folder: Path, psa_weights: dict[str, torch.Tensor]) -> list[Path]:
    """The two files of the authors' static stage."""

    def filled(*shape: int) -> torch.Tensor:
        return torch.tensor(1.0).expand(*shape)

    def norm(name: str, channels: int) -> dict[str, torch.Tensor]:
        return {f"{name}.{k}": filled(channels) for k in ("weight", "bias", "running_mean", "running_var")}

    seg = {f"module.encoder.{k}": v for k, v in psa_weights.items()} | {
        "module.seg_main.seg1.conv1.weight": filled(512, 4096, 3, 3),
        "module.seg_main.seg1.conv1.bias": filled(512),
        **norm("module.seg_main.seg1.bn1", 512),
        "module.seg_main.seg2.weight": filled(21, 512, 3, 3),
        "module.seg_main.seg2.bias": filled(21),
    }
    dd = {
        "module.dd_head0.conv1ab.conv1.weight": filled(256, 640, 3, 3),
        **norm("module.dd_head0.conv1ab.bn1", 256),
        "module.dd0.conv1c.conv1.weight": filled(256, 21, 1, 1),
        **norm("module.dd0.conv1c.bn1", 256),
        "module.dd0.conv1abc.conv1.weight": filled(256, 512, 1, 1),
        "module.dd0.conv1abc.conv2.weight": filled(256, 256, 3, 3),
        "module.dd0.conv1abc.conv3.weight": filled(256, 256, 1, 1),
        "module.dd0.conv1abc.downsample.weight": filled(256, 512, 1, 1),
        **{k: v for n in ("bn1", "bn2", "bn3", "bnd") for k, v in norm(f"module.dd0.conv1abc.{n}", 256).items()},
        "module.dd0.pred_abc.weight": filled(1, 256, 1, 1),
    }
    torch.save(seg, folder / "seg_0010.pth")
    torch.save(dd, folder / "ssdd_0010.pth")
    return [folder / "seg_0010.pth", folder / "ssdd_0010.pth"]


def test_the_authors_two_files_make_one_checkpoint_of_the_static_stage(
    psa_weights: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    report = convert_weights(static_files(tmp_path, psa_weights), tmp_path / "static.ckpt")
    assert (report.skipped, report.missing) == ({}, [])

    def network(classes: int) -> SegmentationNetwork:
        return SegmentationNetwork(classes, "resnet38", output_stride=8)

    stage = meta(StaticRefinementModule, 21, network, SSDD)
    found = read(tmp_path / "static.ckpt")["state_dict"]
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in stage.state_dict().items()}
    assert found["network.head.features.2.num_batches_tracked"] == 0


def test_dd_nets_alone_are_converted(psa_weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    _, dd = static_files(tmp_path, psa_weights)
    report = convert_weights([dd], tmp_path / "dd.pth")
    assert len(report.loaded) == 7 + 6 * 4
    assert all(name.startswith("ssdd.ddnet.") for name in read(tmp_path / "dd.pth"))
    assert "b4_3.conv_branch2a.weight" in report.missing


def test_a_backbone_of_timm_is_converted(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ClassificationNetwork(5, "test_efficientnet", output_stride=32)
    torch.save(network.backbone.model.state_dict(), tmp_path / "timm.pth")
    convert_weights([tmp_path / "timm.pth"], tmp_path / "out.pth", "test_efficientnet")
    expected = {f"network.{k}": v for k, v in network.state_dict().items() if k.startswith("backbone")}
    found = read(tmp_path / "out.pth")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[k], expected[k]) for k in found)


def test_converting_twice_changes_nothing(res38_cls: Path, tmp_path: Path) -> None:
    convert_weights([res38_cls], tmp_path / "a.ckpt")
    convert_weights([tmp_path / "a.ckpt"], tmp_path / "b.pth")
    assert set(read(res38_cls)) == {k for k in read(tmp_path / "b.pth") if not k.endswith("num_batches_tracked")}


def test_the_command_reports_and_writes(res38_cls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = {**read(res38_cls), "f10.weight": torch.ones(2)}
    torch.save(weights, tmp_path / "more.pth")
    out = tmp_path / "folder" / "out.pth"
    assert main(["convert-weights", str(tmp_path / "more.pth"), str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'more.pth'}: {len(weights) - 1} loaded, 1 skipped, 0 missing"
    assert lines[1:] == ["  skipped f10.weight: unknown name", f"{out} was written."]
    assert out.is_file()


def test_the_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert "convert-weights convert weights of MXNet" in capsys.readouterr().out


@pytest.fixture
def wrong(res38_cls: Path, psa_weights: dict[str, torch.Tensor], tmp_path: Path) -> dict[str, Path]:
    """Sources that cannot be converted, by kind."""
    part = {k: v for k, v in psa_weights.items() if not k.startswith("b5")}
    torch.save(part, tmp_path / "part.pth")
    torch.save({"fc.weight": torch.ones(2)}, tmp_path / "foreign.pth")
    torch.save({"b4.bn_branch2a.bias": torch.ones(2)}, tmp_path / "head.pth")
    (tmp_path / "cut.params").write_bytes(mxnet.params({"arg:conv1a_weight": torch.ones(64, 3, 3, 3).numpy()})[:900])
    vgg = {"arg:conv1_1_weight": torch.ones(64, 3, 3, 3).numpy()}
    (tmp_path / "vgg.params").write_bytes(mxnet.params(vgg))
    return {"res38": res38_cls, **{p.stem: p for p in tmp_path.glob("*.p*")}}


@pytest.mark.parametrize(
    ("sources", "out", "arch", "message"),
    [
        (["part"], "o.pth", "resnet38", r"part\.pth does not hold the weights of resnet38: 31 of its tensors.*b5\.bn"),
        (
            ["foreign"],
            "o.pth",
            "resnet38",
            r"foreign\.pth does not hold.*the file's first tensor is fc\.weight.*--arch",
        ),
        (["head"], "o.pth", "resnet38", r"head\.pth does not hold.*the file's first tensor is b4\.bn_branch2a\.bias"),
        (["vgg"], "o.pth", "resnet38", r"vgg\.params does not hold.*first tensor is arg:conv1_1_weight"),
        (["cut"], "o.pth", "resnet38", r"cut\.params is truncated"),
        (["res38"], "o.pth", "resnet99", r"unknown backbone 'resnet99'.*resnet38"),
        (["res38"], "o.npz", "resnet38", r"expected an output file \.pth or \.ckpt, found .*o\.npz"),
        (["res38", "res38"], "o.pth", "resnet38", r"holds 192 tensors that an earlier file holds too"),
    ],
)
def test_wrong_sources_are_one_sentence_and_leave_no_file(
    wrong: dict[str, Path], tmp_path: Path, sources: list[str], out: str, arch: str, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        convert_weights([wrong[name] for name in sources], tmp_path / out, arch)
    assert not Path(tmp_path / out).exists()


def test_a_classifier_of_another_backbone_is_no_backbone(res38_cls: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not hold the weights of resnet18"):
        convert_weights([res38_cls], tmp_path / "o.pth", "resnet18")


def test_a_converted_checkpoint_predicts_without_training(tiny_devkit: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ClassificationNetwork(5, "test_efficientnet").eval()
    with torch.no_grad():
        network.classifier.weight.abs_()  # so that every image has activations
    torch.save({f"network.{k}": v for k, v in network.state_dict().items()}, tmp_path / "published.pth")
    convert_weights([tmp_path / "published.pth"], tmp_path / "cls.ckpt", "test_efficientnet")
    options = {
        "model": "ClassificationModule",
        "model.network": "ssdd_lightning.nn.ClassificationNetwork",
        "model.network.backbone": "test_efficientnet",
        "model.background_constant": 0.25,
        "data.root": tiny_devkit,
        "data.classes": "[cat,cow,dog,sheep]",
        "data.num_workers": 0,
        "trainer.accelerator": "cpu",
        "trainer.logger": "false",
        "trainer.default_root_dir": tmp_path,
        "output.output_dir": tmp_path / "maps",
        "ckpt_path": tmp_path / "cls.ckpt",
    }
    main(["predict", *(f"--{key}={value}" for key, value in options.items())])
    written = sorted((tmp_path / "maps").glob("*.map.png"))
    assert len(written) == 12
    voc = tiny_devkit / "VOCdevkit" / "VOC2012"
    photo = torch.from_numpy(read_image(voc / "JPEGImages" / f"{written[0].name.removesuffix('.map.png')}.jpg"))
    classes, scores = read_map(written[0])
    stage = ClassificationModule(5, lambda _: network, background_constant=0.25)
    labels = torch.tensor([[True, *(index in classes for index in (8, 10, 12, 17))]])
    expected = stage.score_maps(photo.permute(2, 0, 1)[None], labels)[0][labels[0]]
    torch.testing.assert_close(torch.from_numpy(scores), expected, rtol=0, atol=0.01)


def test_a_source_is_never_written_over(res38_cls: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(res38_cls.read_bytes())
    with pytest.raises(InputError, match=r"own\.pth would be written over its source"):
        convert_weights([own], tmp_path / "." / "own.pth")


def test_a_checkpoint_needs_a_backbone(psa_weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    _, dd = static_files(tmp_path, psa_weights)
    with pytest.raises(InputError, match="holds no backbone, and a checkpoint needs one"):
        convert_weights([dd], tmp_path / "dd.ckpt")
    assert not (tmp_path / "dd.ckpt").exists()
