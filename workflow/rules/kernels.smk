"""Verify the kernels on a GPU before measuring anything, so that a whole run uses the same ones."""

VERIFIED = f"{RUN}/kernels.txt" if CONFIG.device == "cuda" else []


rule verify_kernels:
    output:
        f"{RUN}/kernels.txt",
    log:
        f"{RUN}/logs/kernels.log",
    priority: 2
    conda:
        "../../envs/run.yaml"
    threads: ALONE
    resources:
        **ASKS,
        runtime=30,
        gpu=GPU,
    message:
        "verifying the kernels on this GPU"
    shell:
        "slay kernels verify > {output:q} 2> {log:q} || "
        "echo 'kernels were not all verified, PyTorch computes instead: see {log}' "
        "| tee -a {output:q} >&2"
