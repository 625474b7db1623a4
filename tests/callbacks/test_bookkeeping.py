from typing import Any

from ssdd_lightning.callbacks.bookkeeping import fit_recipe

STOPPING = {"class_path": "pytorch_lightning.callbacks.EarlyStopping", "init_args": {"monitor": "train/loss"}}


def test_one_callback_may_stand_without_a_list() -> None:
    def recipe(callbacks: Any) -> Any:
        return fit_recipe({"model": {}, "data": {}, "trainer": {"callbacks": callbacks}}, [])

    assert recipe(STOPPING) == recipe([STOPPING]) != recipe([])


def test_how_a_network_is_used_makes_no_other_fit_not_even_beside_an_entry_from_before() -> None:
    def recipe(scales: list[float], failed_ratio: float = 0.5, width: int = 8) -> Any:
        biases = {"dd_bias": scales[0], "failed_ratio": failed_ratio}
        ssdd = {"class_path": "ssdd_lightning.SSDD", "init_args": {"width": width, "biases": biases}}
        arguments = {"testing": {"scales": scales, "crf": False}, "ssdd": ssdd}
        only_used = ("testing", "ssdd.init_args.biases.dd_bias")
        return fit_recipe({"model": {"init_args": arguments}, "data": {}, "trainer": {}}, [], only_used)

    entry = {"settings": recipe([1.0]).settings, "inputs": recipe([1.0]).inputs}
    assert recipe([2.0]).difference(entry) is None
    del entry["settings"]["model"]["init_args"]["testing"]
    assert recipe([2.0]).difference(entry) is None
    assert "failed_ratio was 0.5 and is 0.9" in recipe([1.0], failed_ratio=0.9).difference(entry)
    assert "width was 8 and is 16" in recipe([1.0], width=16).difference(entry)


def test_an_option_that_is_gone_makes_another_fit_only_if_it_had_another_value() -> None:
    def recipe(**arguments: Any) -> Any:
        return fit_recipe({"model": {"init_args": {"alpha": 0.5, **arguments}}, "data": {}, "trainer": {}}, [])

    def entry(**arguments: Any) -> dict[str, Any]:
        return {"settings": recipe(**arguments).settings, "inputs": recipe().inputs}

    assert recipe().difference(entry(balanced_difference_loss=True, refinement={"warm_up": 0.0})) is None
    assert "balanced_difference_loss was false and is null" in recipe().difference(
        entry(balanced_difference_loss=False)
    )
    assert (
        recipe(balanced_difference_loss=True).difference(entry(balanced_difference_loss=True)) is None
    )  # a stage of somebody else
