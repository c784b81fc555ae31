"""A real Slurm on this machine, for a test: munge, one slurmctld, two slurmd, one with two GPUs.

Needs root and Debian's packages munge, slurmctld, slurmd and slurm-client. Its configuration is in
/etc/slurm, where the steps of a job look for it; what was there before is put back.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
ETC = Path("/etc/slurm")
CONF = """\
ClusterName=slay
SlurmctldHost={host}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0
SlurmdParameters=config_overrides
ReturnToService=2
MinJobAge=600
MpiDefault=none
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
GresTypes=gpu
NodeName=cpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=200000
NodeName=gpu1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=200000 \\
    Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str:
    """What this machine lacks to be a cluster; "" if nothing."""
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    lacking = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if lacking:
        return f"needs {', '.join(lacking)}: apt-get install munge slurmctld slurmd slurm-client"
    return "" if os.geteuid() == 0 else "needs root, to write /etc/slurm"


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """The cluster, while inside; its daemons are stopped by their process ids."""
    with ExitStack() as stack:
        stack.callback(_put_back, ETC, _put_away(ETC))
        host = socket.gethostname()
        for name in ("munge", "state", "spool-cpu1", "spool-gpu1"):
            (folder / name).mkdir(parents=True, mode=0o755)
        _devices(folder)
        (ETC / "slurm.conf").write_text(CONF.format(host=host, folder=folder, ports=_ports(3)))
        gres = "".join(f"NodeName=gpu1 Name=gpu File={folder}/gpu{i}\n" for i in range(2))
        (ETC / "gres.conf").write_text(gres)
        key = folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = ("socket", "key-file", "pid-file", "log-file", "seed-file")
        where = [f"--{name}={folder}/munge/{name.removesuffix('-file')}" for name in files]
        stack.enter_context(_daemon("munged", "--foreground", "--force", *where, log=folder))
        stack.enter_context(_daemon("slurmctld", "-D", log=folder))
        for node in ("cpu1", "gpu1"):
            stack.enter_context(_daemon("slurmd", "-D", "-N", node, log=folder))
        _wait_for_nodes(folder)
        yield


def jobs(*states: str) -> dict[str, str]:
    """Names of the cluster's jobs in some states, by their numbers; the comment names a job."""
    command = ["squeue", "--noheader", "--format=%i|%T|%k", "--states", ",".join(states) or "all"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split("|") for line in lines]
    return {number: comment for number, _, comment in rows}


@contextmanager
def _daemon(*command: str, log: Path) -> Iterator[None]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    program = shutil.which(command[0], path=path)
    assert program is not None
    with (log / f"{command[0]}.out").open("ab") as out:
        process = subprocess.Popen([program, *command[1:]], stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for_nodes(folder: Path) -> None:
    for _ in range(300):
        seen = subprocess.run(
            ["sinfo", "--noheader", "--Node", "--format=%N %T"], capture_output=True, text=True
        ).stdout.split("\n")
        if sum(line.endswith("idle") for line in seen) == 2:
            return
        time.sleep(0.1)
    logs = "\n".join(path.read_text(errors="replace")[-1500:] for path in folder.glob("*.log"))
    raise RuntimeError(f"the cluster does not start: {seen}\n{logs}")


def _devices(folder: Path) -> None:
    """Two character devices that pass for GPUs: with plain files none would be handed out."""
    for i in range(2):
        os.mknod(folder / f"gpu{i}", stat.S_IFCHR | 0o666, os.makedev(1, 3))


def _ports(number: int) -> list[int]:
    """Free ports."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for free in sockets:
            free.bind(("", 0))
        return [free.getsockname()[1] for free in sockets]


def _put_away(etc: Path) -> Path | None:
    """Move a folder aside and make an empty one."""
    aside = etc.with_name(f"{etc.name}.aside")
    if etc.exists():
        etc.rename(aside)
    etc.mkdir(parents=True)
    return aside if aside.exists() else None


def _put_back(etc: Path, aside: Path | None) -> None:
    shutil.rmtree(etc)
    if aside is not None:
        aside.rename(etc)
