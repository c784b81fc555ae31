"""Fork servers: import torch, or pandas and matplotlib, once, and fork a child for each command.

With SLAY_WARM=<folder of sockets> in its environment, a command `slay` of `SERVER` passes its
arguments, working directory, environment and standard streams to its server, and exits with the
child's exit code; without a server it runs here. A server imports libraries only, before its first
child: each child imports slay afresh. This file is run by its path, so that the server does not
import the package.

A child exits with its client, the server when its standard input is closed.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

VARIABLE = "SLAY_WARM"
STREAMS = 3  # standard input, output and error
LIBRARIES = {  # of each server
    "measure": ("click", "numpy", "pydantic.main", "pydantic.fields", "torch", "torch._dynamo"),
    "report": (
        "click", "jinja2", "pandas", "scipy.stats", "yaml",
        "matplotlib.pyplot", "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf",
    ),
}  # fmt: skip
SERVER = {  # of each command
    **dict.fromkeys(("run", "mechanisms"), "measure"),
    **dict.fromkeys(("collect", "table", "figure", "page", "paper", "arxiv"), "report"),
}


def start(names: Iterable[str]) -> Any:
    """Start servers for the children of this process, with which they end; returns what to keep.

    None if there is no place for their sockets: commands run without them.
    """
    from slay.files import short_folder

    try:
        folder = short_folder()
    except OSError:
        return None
    servers = [
        subprocess.Popen(
            [sys.executable, __file__, os.path.join(folder.name, name)], stdin=subprocess.PIPE
        )
        for name in names
    ]
    os.environ[VARIABLE] = folder.name
    return folder, servers


def forward(arguments: list[str]) -> int | None:
    """Run `slay` with these arguments on the server of their command.

    Returns the exit code; None if there is no server.
    """
    folder = os.environ.get(VARIABLE)
    if not folder or not arguments or arguments[0] not in SERVER:
        return None
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(os.path.join(folder, SERVER[arguments[0]]))
        except OSError:
            return None
        request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
        status = b""
        with suppress(ConnectionError):  # the child was killed
            server.sendall(len(request).to_bytes(4, "big"))
            socket.send_fds(server, [request[:1]], range(STREAMS))  # sent with one byte
            server.sendall(request[1:])
            status = server.recv(1)
    if not status:
        print("Error: the job's process died", file=sys.stderr)
        return 1
    return status[0]


def serve(path: str) -> None:
    """Fork a child for each request, until standard input is closed.

    The name of the socket is that of the server. Libraries are imported at the first request.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children leave no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        try:
            listener.bind(path)
        except OSError:
            return  # its folder is gone, or cannot hold a socket: jobs run by themselves
        listener.listen(256)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            client, _ = listener.accept()
            _prepare(Path(path).name)
            if not os.fork():
                listener.close()
                _run(client)
            client.close()
    Path(path).unlink(missing_ok=True)


@cache
def _prepare(name: str) -> None:
    """Import the libraries of a server."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # read once, when torch is imported
    os.environ["MPLBACKEND"] = "Agg"  # as in slay/report/style.py
    for library in LIBRARIES[name]:
        __import__(library)
    gc.freeze()  # else garbage collection in a child would touch, and so copy, their objects


def _run(client: socket.socket) -> None:
    """Run one job in a child of the server; never returns."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        size = int.from_bytes(_receive(client, 4), "big")
        first, streams, *_ = socket.recv_fds(client, 1, STREAMS)
        arguments, folder, environment = json.loads(first + _receive(client, size - 1))
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        os.chdir(folder)
        environment.pop(VARIABLE)
        os.environ.clear()
        os.environ.update(environment)
        sys.path[:] = [*_paths(environment), *(p for p in sys.path if p)]
        threading.Thread(target=_die_with, args=[client], daemon=True).start()
        sys.argv[1:] = arguments
        runpy.run_module("slay.cli", run_name="__main__")
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        client.sendall(bytes([status & 0xFF]))
        os._exit(status)


def _receive(client: socket.socket, size: int) -> bytes:
    data = client.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise ConnectionError("the client went away")
    return data


def _paths(environment: dict[str, str]) -> list[str]:
    """Return the folders in PYTHONPATH."""
    return [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]


def _die_with(client: socket.socket) -> None:
    """End this process when its client is gone."""
    if not client.recv(1):
        os._exit(1)


if __name__ == "__main__":
    del sys.path[0]  # this folder: its modules are the package's, not top level
    serve(sys.argv[1])
