"""What a figure was measured on."""

import os
import platform
from importlib.metadata import version

PACKAGES = ("torch", "transformers", "trl", "peft", "gradio", "fastapi", "uvicorn", "sqlalchemy")


def machine(packages: tuple[str, ...] = PACKAGES) -> dict:
    """The processor, its cores, the system, Python and the versions of `packages`."""
    return {
        "processor": _processor(),
        "num_cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as stream:
            lines = [line for line in stream if line.startswith("model name")]
    except OSError:
        lines = []
    return lines[0].partition(":")[2].strip() if lines else platform.processor()
