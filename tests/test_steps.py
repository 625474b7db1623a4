import json

import pytest

from ssdd_lightning.steps import run_step


def test_a_step_is_done_once_and_again_if_it_failed(tmp_path, capsys):
    done = []

    def fail():
        raise RuntimeError

    with pytest.raises(RuntimeError):
        run_step(tmp_path, "fit", fail)
    run_step(tmp_path, "fit", lambda: done.append(1))
    run_step(tmp_path, "fit", lambda: done.append(2))
    assert done == [1]
    assert json.loads((tmp_path / "steps" / "fit.json").read_text())["seconds"] >= 0
    assert capsys.readouterr().out == "== fit\n" * 2
