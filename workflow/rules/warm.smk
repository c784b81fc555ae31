"""Fork servers that have imported libraries, for jobs of this machine (slay/pipeline/warm.py)."""

import subprocess

from slay.files import short_folder
from slay.pipeline.warm import LIBRARIES

WARM = []  # the folder of their sockets, removed when this process ends


def keep_warm():
    """Start those whose jobs run on this machine in this interpreter: they end with this process.

    What is rendered is rendered here, also if measurements are submitted to a cluster.
    """
    names = LIBRARIES if workflow.local_exec else ["report"]
    if not workflow.touch and not workflow.deployment_settings.deployment_method:
        try:
            WARM.append(short_folder())
        except OSError:  # jobs run without them
            return
        for name in names:
            subprocess.Popen(
                [
                    sys.executable,
                    os.path.join(ROOT, "slay", "pipeline", "warm.py"),
                    os.path.join(WARM[0].name, name),
                ],
                stdin=subprocess.PIPE,
            )
        os.environ.update(SLAY_WARM=WARM[0].name)


def plan_in_threads():
    """Let rules with `run:`, which only write a file, do so here: not in a Snakemake for each."""
    for job in workflow.dag.needrun_jobs():
        if job.is_run and workflow.scheduler is not None:
            workflow.scheduler.get_executor(job).use_threads = True
