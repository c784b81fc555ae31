"""Small models trained on synthetic tasks."""


rule run_tasks:
    input:
        out_of_date("tasks"),
        ancient(VERIFIED),
    output:
        f"{RUN}/records/tasks/{{job}}.json",
    log:
        f"{RUN}/logs/tasks/{{job}}.log",
    conda:
        "../../envs/run.yaml"
    threads: 1
    resources:
        **ASKS,
        runtime=30,
        gpu=GPU,
    params:
        code=code("tasks"),
        arguments=arguments("tasks"),
    message:
        "tasks {wildcards.job}"
    shell:
        "slay run {params.arguments} --code {params.code}"
        " --threads {threads} --out {output:q} > {log:q} 2>&1"
