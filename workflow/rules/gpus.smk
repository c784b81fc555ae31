"""The GPUs of this machine: each job takes one (slay/pipeline/devices.py); timing jobs divide the cores."""

import subprocess

from slay.pipeline.devices import VARIABLE, visible

GPUS = visible() if LOCAL and CONFIG.device != "cpu" else []
GPU = 1 if CONFIG.device == "cuda" or GPUS else 0  # per job
if GPUS:
    os.environ[VARIABLE] = ",".join(GPUS)  # jobs need not ask again
if LOCAL and GPU and "gpu" not in workflow.resource_settings.resources:
    workflow.register_resource("gpu", max(1, len(GPUS)))

# Cores of a timing job: all of the machine, or an equal share per GPU.
ALONE = max(1, (workflow.resource_settings.cores or 8) // max(1, len(GPUS)))


def look_for_gpu():
    """Fail early, not in every job, if measurements need a GPU and this machine has none."""
    if GPUS or workflow.touch or not workflow.local_exec or CONFIG.device != "cuda":
        return
    if any(job.resources.get("gpu") for job in workflow.dag.needrun_jobs()):
        look = "import torch; raise SystemExit(not torch.cuda.is_available())"
        if subprocess.run([sys.executable, "-c", look]).returncode:
            sys.exit(
                "config: device: 'cuda', and torch sees no GPU here; take a configuration with "
                "device: cpu, or a cluster: --profile slurm"
            )
