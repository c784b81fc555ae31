"""Data for the figures of kernels."""


rule run_analysis:
    input:
        out_of_date("analysis"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/analysis/{{job}}.json",
    log:
        f"{RUN}/logs/analysis/{{job}}.log",
    conda:
        "../../envs/run.yaml"
    threads: 1
    resources:
        **ASKS,
        runtime=30,
        gpu=GPU,
    params:
        code=code("analysis"),
        arguments=arguments("analysis"),
    message:
        "analysis {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
