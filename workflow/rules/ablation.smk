"""Error and latency by number of features. A timing job, which has the machine to itself."""


rule run_ablation:
    input:
        out_of_date("ablation"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/ablation/{{job}}.json",
    log:
        f"{RUN}/logs/ablation/{{job}}.log",
    conda:
        "../../envs/run.yaml"
    threads: ALONE
    resources:
        **ASKS,
        runtime=60,
        gpu=GPU,
        timing=1,
    params:
        code=code("ablation"),
        arguments=arguments("ablation"),
    message:
        "ablation {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
