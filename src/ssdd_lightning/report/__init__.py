"""`ssdd report`: a run, or folders of masks, as one page with tables, curves and pictures."""
