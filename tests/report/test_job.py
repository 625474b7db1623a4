import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssdd_lightning.errors import InputError
from ssdd_lightning.evaluation.folder import evaluate_folders
from ssdd_lightning.report.job import ReportJob
from ssdd_lightning.report.pictures import SIDE
from ssdd_lightning.storage.masks import write_mask
from ssdd_lightning.storage.score_maps import write_map
from tests.helpers.processes import python
from tests.report.conftest import HOSTILE, Folders

Images = Callable[[ReportJob], dict[str, dict[str, Any]]]


def embedded(page: Path) -> dict[str, Any]:
    """What the page's script reads."""
    text = page.read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text.split('id="data">')[1].split("</script>")[0])
    return content


def test_the_table_is_that_of_evaluate(three: Folders) -> None:
    content = embedded(three.job().run(progress=False))
    rows = {row["key"]: row for row in content["stages"]}
    assert list(rows) == ["knowledge", "advice", "oracle", "prediction"]
    names = ["a", "b", "c"]
    card = evaluate_folders(three.root / "predictions", three.root / "truth", names)
    given = evaluate_folders(three.root / "knowledge", three.root / "truth", names, advice=three.root / "advice")
    assert rows["prediction"]["miou"] == pytest.approx(card.miou, abs=1e-6)
    assert rows["prediction"]["iou"]["8"] == pytest.approx(card.iou[8], abs=1e-4)
    assert rows["knowledge"]["miou"] == pytest.approx(given.miou, abs=1e-6)
    assert rows["oracle"]["miou"] == pytest.approx(given.companions["oracle"].miou, abs=1e-6)


def test_each_image_has_its_own_scores_and_share_of_changed_pixels(three: Folders) -> None:
    job = three.job()
    images = {image["name"]: image for image in embedded(job.run(progress=False))["images"]}
    assert images["a"]["scores"]["prediction"]["iou"]["8"] == pytest.approx(0.9)
    assert images["b"]["scores"]["prediction"]["iou"]["8"] == pytest.approx(0.1)
    assert images["c"]["scores"]["knowledge"]["iou"] == pytest.approx({"8": 0.2, "0": 20 / 36}, abs=1e-4)
    assert images["a"]["changed"] == pytest.approx(0.35)  # 18 columns instead of 4, of 40
    assert images["b"]["changed"] == pytest.approx(0.05)
    assert images["a"]["layers"] == ["photo", "knowledge", "advice", "prediction", "d_knowledge", "d_advice", "truth"]


def test_pictures_lie_beside_the_page_in_one_size(folders: Folders, images_of: Images) -> None:
    folders.add("small", (30, 40))
    folders.add("large", (700, 2 * SIDE))
    job = folders.job()
    job.run(progress=False)
    for name, size in (("small", (40, 30)), ("large", (SIDE, 350))):
        image = images_of(job)[name]
        assert image["size"] == list(size)
        for layer in image["layers"]:
            suffix = ".jpg" if layer in ("photo", "d_knowledge", "d_advice") else ".png"
            with Image.open(folders.out / "pictures" / layer / (image["id"] + suffix)) as picture:
                assert picture.size == size, layer
    with Image.open(folders.out / "pictures" / "truth" / f"{images_of(job)['small']['id']}.png") as picture:
        drawn = np.asarray(picture.convert("RGBA"))
    assert drawn[0, 30].tolist() == [0, 0, 0, 0]  # background: the photo shows through
    assert drawn[0, 5, 3] == 255
    assert drawn[0, 19].tolist() == [255, 255, 255, 255]  # the outline


def test_a_second_report_makes_only_what_changed(three: Folders, capsys: pytest.CaptureFixture[str]) -> None:
    three.job().run(progress=False)
    before = three.times()
    three.job().run(progress=False)
    assert three.times() == before
    assert "finished" in capsys.readouterr().out
    write_mask(three.root / "predictions" / "b.png", np.full((30, 40), 8, np.uint8))
    page = three.job().run(progress=False)
    images = {image["name"]: image for image in embedded(page)["images"]}
    changed = {Path(path).stem for path, time in three.times().items() if before[path] != time}
    assert changed == {images["b"]["id"]}
    assert images["b"]["scores"]["prediction"]["iou"]["8"] == 0.5


def test_a_damaged_picture_is_made_again(three: Folders) -> None:
    three.job().run(progress=False)
    victim = next((three.out / "pictures" / "photo").iterdir())
    whole = victim.read_bytes()
    victim.write_bytes(whole[:50])
    three.job().run(progress=False)
    assert victim.read_bytes() == whole


def test_a_finished_report_needs_no_torch(three: Folders) -> None:
    three.job().run(progress=False)
    words = ["report", f"--predictions={three.root / 'predictions'}", f"--images={three.root / 'photos'}"]
    words += [f"--{key}={three.root / key}" for key in ("truth", "knowledge", "advice")] + [f"--out={three.out}"]
    code = "import sys; from ssdd_lightning.cli.main import main; main({}); assert 'torch' not in sys.modules"
    assert "nothing to do" in python(code.format(words))


def test_without_truth_nothing_is_scored_and_everything_shown(three: Folders) -> None:
    content = embedded(three.job(truth=None).run(progress=False))
    assert [row["key"] for row in content["stages"]] == ["knowledge", "advice", "prediction"]
    assert all("miou" not in row for row in content["stages"])
    assert content["images"][0]["classes"] == [8]
    assert content["images"][0]["scores"] == {}
    assert content["images"][0]["changed"] is not None


def test_images_without_truth_are_counted(three: Folders) -> None:
    three.add("d", truth=False)
    row = embedded(three.job().run(progress=False))["stages"][-1]
    assert (row["images"], row["scored"]) == (4, 3)


def test_without_difference_maps_knowledge_and_advice(three: Folders) -> None:
    for key in ("d_knowledge", "d_advice"):
        shutil.rmtree(three.root / "predictions" / key)
    content = embedded(three.job(knowledge=None, advice=None).run(progress=False))
    assert [layer["key"] for layer in content["layers"]] == ["photo", "prediction", "truth"]
    assert content["images"][0]["changed"] is None


def test_score_maps_are_shown_by_their_largest_channel(three: Folders) -> None:
    shutil.rmtree(three.root / "knowledge")
    for name in "abc":
        scores = np.zeros((2, 30, 40), np.float32)
        scores[1, :, :10] = 1
        scores[0, :, 10:] = 1
        write_map(three.root / "knowledge" / f"{name}.map.png", [0, 8], scores)
    rows = {row["key"]: row for row in embedded(three.job().run(progress=False))["stages"]}
    assert rows["knowledge"]["iou"]["8"] == 0.5


def test_hostile_names_stay_names(folders: Folders) -> None:
    for name in HOSTILE:
        folders.add(name)
    page = folders.job().run(progress=False)
    text = page.read_text(encoding="utf-8")
    assert {image["name"] for image in embedded(page)["images"]} == set(HOSTILE)
    assert "<img src=x" not in text
    assert text.count("</script>") == 2
    pictures = [path.name for path in (folders.out / "pictures").rglob("*.*")]
    assert len(pictures) == 7 * len(HOSTILE)
    assert all(len(name) == 20 and name.isascii() and name[:16].isalnum() for name in pictures)


def test_a_mask_of_all_values_is_drawn(three: Folders) -> None:
    grey = np.arange(30 * 40, dtype=np.int64).reshape(30, 40) % 256
    write_mask(three.root / "predictions" / "a.png", grey)
    content = embedded(three.job(truth=None).run(progress=False))
    assert len(content["images"][0]["classes"]) == 254


def test_a_split_chooses_the_images(three: Folders) -> None:
    (three.root / "few.txt").write_text("c\na\n")
    content = embedded(three.job(split=three.root / "few.txt").run(progress=False))
    assert [image["name"] for image in content["images"]] == ["a", "c"]
    assert {row["split"] for row in content["stages"]} == {"few"}


def test_masks_without_photos_are_named(three: Folders) -> None:
    three.photo("b").unlink()
    content = embedded(three.job().run(progress=False))
    assert [image["name"] for image in content["images"]] == ["a", "c"]
    assert "1 images have a mask and no photo" in content["notes"][0]
    three.photo("a").rename(three.photo("x"))
    three.photo("c").unlink()
    with pytest.raises(InputError, match="holds a photo of none of the 3 masks, such as a"):
        three.job()


def test_wrong_input_is_refused_before_a_page_is_written(three: Folders) -> None:
    write_mask(three.root / "truth" / "b.png", np.zeros((5, 5), np.uint8))
    with pytest.raises(InputError, match="must have the size of the ground truth"):
        three.job().run(progress=False)
    assert not (three.out / "index.html").exists()


def test_it_is_not_written_into_what_it_reads(three: Folders) -> None:
    with pytest.raises(InputError, match="choose another --out"):
        ReportJob(three.job().material, three.root / "truth")
