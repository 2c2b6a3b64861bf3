"""Starts a stage again under accelerate, as many processes as its config says."""

import logging
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rlhf.config import nearest_hint, read_yaml
from rlhf.errors import ConfigError


def is_launched() -> bool:
    """Whether this process was started by a launcher (accelerate, torchrun, deepspeed)."""
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ


def is_main_process() -> bool:
    """Whether this is the process of rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def launch(verb: str, argv: Sequence[str], accelerate_config: str) -> int:
    """Run `rlhf VERB ARGV` under the launcher of an accelerate config; its exit code.

    The processes print their own errors (rank 0 alone); this one adds none.
    """
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    path = accelerate_config_path(accelerate_config)
    # Its report repeats in fifteen lines that a child exited; the child has said why in one.
    for name in ("agent.server.api", "multiprocessing.api", "multiprocessing.errors"):
        logging.getLogger(f"torch.distributed.elastic.{name}").setLevel(logging.CRITICAL)
    sys.stdout.flush()
    try:
        start_processes(path, ["--module", "rlhf", verb, *argv])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 4
    except SystemExit as error:  # a launcher of one process passes its code on like this
        return error.code if isinstance(error.code, int) else 4
    return 0


def leave() -> NoReturn:
    """End this process, one of several whose work is all on disk, with exit code 0.

    At once, without destructors: gloo's can wait for ever for a rank that has gone.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def start_processes(path: Path, words: Sequence[str]) -> None:
    """Start what the accelerate config says and wait for it.

    Several processes on the CPU go through torchrun: accelerate starts them only under an
    mpirun, and without one quietly starts a single process.
    """
    config = read_yaml(path)
    num_processes = int(config.get("num_processes") or 1)
    if config.get("use_cpu") and num_processes > 1 and not config.get("mpirun_config"):
        from torch.distributed.run import main as torchrun

        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torchrun(["--standalone", f"--nproc-per-node={num_processes}", *words])
        return
    from accelerate.commands.launch import launch_command, launch_command_parser

    launch_command(launch_command_parser().parse_args(["--config_file", str(path), *words]))


def accelerate_config_path(name: str) -> Path:
    """The file that --accelerate_config means: a path, or one of TRL's by name."""
    if Path(name).is_file():
        return Path(name)
    trl = find_spec("trl")
    assert trl is not None
    assert trl.origin is not None
    folder = Path(trl.origin).parent / "accelerate_configs"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise ConfigError(
            f"--accelerate_config {name}: neither a file nor one of {', '.join(known)}"
            f"{nearest_hint(name, known)}"
        )
    return folder / f"{name}.yaml"
