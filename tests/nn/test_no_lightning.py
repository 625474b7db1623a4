import subprocess
import sys

CODE = """
import sys
import ssdd_lightning.nn, ssdd_lightning.functional, ssdd_lightning.crf
from ssdd_lightning.crf import DenseCRF
from ssdd_lightning.functional import dense_crf, ssdd_merge
from ssdd_lightning.nn import SSDD, SegmentationNetwork
print(sorted({m.split(".")[0] for m in sys.modules} & {"lightning", "pytorch_lightning", "lightning_fabric"}))
"""


def test_networks_functions_and_crf_import_without_lightning():
    run = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[]"
