"""What a benchmark ran on, and its report: a table on the terminal and a JSON file."""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch
from tables import Row, print_table

NOT_MEASURED = "not measured"


def machine() -> dict[str, Any]:
    """Processor, cores, GPU and versions."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": [round(load, 2) for load in os.getloadavg()],
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def report(title: str, rows: list[Row], options: argparse.Namespace) -> None:
    """Print the table; write it, the machine and the options to the file `options.json`, if there is one."""
    print_table(title, rows)
    if options.json:
        settings = {key: value for key, value in vars(options).items() if key != "json"}
        content = {"title": title, "machine": machine(), "options": settings, "rows": rows}
        options.json.write_text(json.dumps(content, indent=2, default=str) + "\n")


def _processor() -> str:
    """Its name, where the system says it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
