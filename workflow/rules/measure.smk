"""Measurements: a rule per experiment, whose jobs are single commands that write one record each."""

VERIFIED = f"{RUN}/kernels.txt" if CONFIG.device == "cuda" else []

# Resources of a measurement. On a cluster each attempt requests more memory, and the temporary
# folder is that of the node. On this machine both are constants unless --default-resources is set:
# constants speed up the planning of thousands of jobs.
ASKS = {"mem_mb": lambda wildcards, attempt: 4000 * attempt}
if LOCAL and not default_resources():
    ASKS = {"mem_mb": 4000, "tmpdir": tempfile.gettempdir()}


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
        "verifying the kernels on this GPU"  # before any measurement, so that all use the same
    shell:
        "slay kernels verify > {output:q} 2> {log:q} || "
        "echo 'kernels were not all verified, PyTorch computes instead: see {log}' "
        "| tee -a {output:q} >&2"


# What the rules differ in. A timing job has the machine to itself: it asks for all cores.
UNTIMED = {"threads": 1, "runtime": 30, "gpu": GPU, "conda": "../../envs/run.yaml"}
TIMED = UNTIMED | {"threads": ALONE, "runtime": 60, "timing": 1}
RULES = {
    "quality": UNTIMED,
    "scaling": TIMED | {"priority": 1},  # before jobs that are not timed
    "ablation": TIMED,
    "max_context": TIMED,  # a time limit ends its search
    "tasks": UNTIMED,
    "analysis": UNTIMED,
    "language": {
        "threads": processes,
        "runtime": lambda wildcards: 60 if processes(wildcards) == 1 else 60 * 24,
        "gpu": lambda wildcards: GPU * processes(wildcards),
        "conda": "../../envs/slay.yaml",
        "retries": 2,  # an interrupted job resumes from its checkpoint in .slay/
    },
}

# A loop ("procedural rule definition"): `use rule ... with` would repeat what all rules share.
# Profiles and --set-threads know the rules by their names, run_quality and so on.
for experiment, own in RULES.items():

    rule:
        name:
            f"run_{experiment}"
        input:
            up_to_date,
            ancient(VERIFIED),
        output:
            f"{RUN}/records/{{experiment}}/{{job}}.json",
        log:
            f"{RUN}/logs/{{experiment}}/{{job}}.log",
        wildcard_constraints:
            experiment=experiment,
        priority: own.get("priority", 0)
        retries: own.get("retries")
        conda:
            own["conda"]
        threads: own["threads"]
        resources:
            **ASKS,
            runtime=own["runtime"],
            gpu=own["gpu"],
            timing=own.get("timing", 0),
        params:
            code=code,
            arguments=arguments,
            threads=threads_each,
        message:
            "{wildcards.experiment} {wildcards.job}"
        shell:
            "slay run {params.arguments} --code {params.code}"
            " --threads {params.threads} --out {output:q} > {log:q} 2>&1"
