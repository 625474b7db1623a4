from tests.helpers.processes import python

CODE = """
import sys
import ssdd_lightning.nn, ssdd_lightning.functional, ssdd_lightning.crf
from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.functional import dense_crf, ssdd_merge
from ssdd_lightning.nn import SSDD, SegmentationNetwork
print(sorted({m.split(".")[0] for m in sys.modules} & {"lightning", "pytorch_lightning", "lightning_fabric"}))
"""


def test_networks_functions_and_crf_import_without_lightning() -> None:
    assert python(CODE).strip() == "[]"
