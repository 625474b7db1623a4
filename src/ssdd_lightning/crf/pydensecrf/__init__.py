"""A drop-in for the package pydensecrf on our lattice: `densecrf` and `utils` with its names, arguments and results.

Change one import, such as `import pydensecrf.densecrf as dcrf` to
`import ssdd_lightning.crf.pydensecrf.densecrf as dcrf`, and code written for pydensecrf runs without a compiler.
"""
