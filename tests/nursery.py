"""Runs commands in forks of one process that has the slow imports behind it.

Importing torch and lightning takes longer than most commands that the tests run. The executables
that ``python nursery.py serve ADDRESS`` is reached by (:func:`write_executables`) stand for
``python`` and the console scripts: each hands its arguments, environment, folder and open files
over, and ends as the fork ends that runs them. Killing the executable kills the fork.
"""

import atexit
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NoReturn

SLOW = (
    "torch", "lightning.pytorch.cli", "torchmetrics", "torchvision", "timm.data", "pandas",
    "matplotlib.pyplot", "PIL.Image", "typer", "rich.progress", "attention_core.training",
    "gymnasium", "h5py", "pandapower", "scipy.stats", "skimage.segmentation", "sklearn.metrics",
    "stable_baselines3",
)  # fmt: skip


def write_executables(folder: Path, address: Path) -> None:
    """Write ``python`` and every console script of the workspace into ``folder``."""
    from importlib.metadata import distributions

    scripts = {
        script.name
        for distribution in distributions()
        if distribution.name.startswith("formers")
        for script in distribution.entry_points.select(group="console_scripts")
    }
    folder.mkdir()
    for name in ("python", *scripts):
        file = folder / name
        file.write_text(
            f"#!/bin/sh\nexec '{sys.executable}' -IS '{__file__}' '{address}' {name} \"$@\"\n"
        )
        file.chmod(0o755)


def request(address: str, arguments: list[str]) -> int:
    """Run one command there and wait for it; its exit status."""
    message = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.connect(address)
        socket.send_fds(link, [json.dumps(message).encode()], [0, 1, 2])
        return int(link.recv(16))


def serve(address: str) -> None:
    """Fork for every request, until killed."""
    import importlib

    for name in SLOW:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(address)
        door.listen()
        while True:
            link, _ = door.accept()
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                door.close()
                return keep(link)
            link.close()


def keep(link: socket.socket) -> None:
    """Run the command of one request in a child and report its end, or end it with its caller."""
    text, files, _, _ = socket.recv_fds(link, 1 << 20, 3)
    child = os.fork()
    if child == 0:
        link.close()
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        leave(partial(become, **json.loads(text)))
    ended, _, _ = select.select([link, os.pidfd_open(child)], [], [])
    if link in ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if link not in ended:
        link.send(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def leave(command: Callable[[], None]) -> NoReturn:
    """Run ``command`` and end as Python would, but without tearing the imported modules down.

    That takes longer than most commands.
    """
    status = 0
    try:
        command()
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if isinstance(stop.code, str):
            print(stop.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        status = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def become(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    """Run ``python -m MODULE``, ``python -c CODE`` or a console script in this process."""
    import runpy
    from importlib.metadata import entry_points

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    name, *rest = arguments
    if name != "python":
        sys.argv = arguments
        (script,) = entry_points(group="console_scripts", name=name)
        sys.exit(script.load()())
    sys.path[0] = folder
    kind, subject, *rest = rest
    sys.argv = [kind, *rest]
    if kind == "-m":
        runpy.run_module(subject, run_name="__main__", alter_sys=True)
    elif kind == "-c":
        exec(compile(subject, "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.exit(f"python here knows -m and -c, not {kind}")


if __name__ == "__main__":
    where, *command = sys.argv[1:]
    if where == "serve":
        serve(*command)
    else:
        sys.exit(request(where, command))
