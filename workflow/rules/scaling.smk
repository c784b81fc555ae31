"""Latency and memory. A timing job has the machine to itself: it asks for all of its cores."""


rule run_scaling:
    input:
        out_of_date("scaling"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/scaling/{{job}}.json",
    log:
        f"{RUN}/logs/scaling/{{job}}.log",
    priority: 1  # before jobs that are not timed
    conda:
        "../../envs/run.yaml"
    threads: ALONE
    resources:
        **ASKS,
        runtime=60,
        gpu=GPU,
        timing=1,
    params:
        code=code("scaling"),
        arguments=arguments("scaling"),
    message:
        "scaling {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
