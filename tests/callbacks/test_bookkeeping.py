from typing import Any

from ssdd_lightning.callbacks.bookkeeping import fit_recipe

STOPPING = {"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"monitor": "train/loss"}}


def test_one_callback_may_stand_without_a_list() -> None:
    def recipe(callbacks: Any) -> Any:
        return fit_recipe({"model": {}, "data": {}, "trainer": {"callbacks": callbacks}}, [])

    assert recipe(STOPPING) == recipe([STOPPING]) != recipe([])
