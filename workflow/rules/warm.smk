"""Fork server that has imported torch, for the jobs of this machine (slay/pipeline/warm.py)."""

import subprocess

from slay.files import short_folder

WARM = []  # the folder of its socket, removed when this process ends


def keep_warm():
    """Start the server if jobs run on this machine in this interpreter. It ends with the process."""
    deployed = workflow.deployment_settings.deployment_method
    if workflow.local_exec and not workflow.touch and not deployed:
        try:
            WARM.append(short_folder())
        except OSError:  # jobs run without it
            return
        path = os.path.join(WARM[0].name, "socket")
        subprocess.Popen(
            [sys.executable, os.path.join(ROOT, "slay", "pipeline", "warm.py"), path],
            stdin=subprocess.PIPE,
        )
        os.environ.update(SLAY_WARM=path)
