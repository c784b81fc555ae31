"""What is out of date: records, and files that were rendered by other code or from other text.

Records say what they were made with (slay/pipeline/stale.py). Of other files Snakemake stores the
digest of their sources, as params; an edit rebuilds them, a new timestamp does not. The run has a
copy in sources.json, in case .snakemake was deleted or the results were copied.
"""

from functools import cache

from slay import files
from slay.pipeline.fingerprint import file_digest, fingerprint
from slay.pipeline.stale import check
from slay.registry import ATTENTION
from slay.report.sources import FIGURES, FILES, PRINTED, RUNS, TABLES, module_of

PAGES = ["configuration", *(name for name in JOBS if JOBS[name])]  # of the report


def made_of(modules, *patterns):
    """Digest of the code that some modules can import, and of the text files that match.

    Triton kernels are left out: these files are rendered on a CPU.
    """
    paths = sorted(path for pattern in patterns for path in Path(ROOT).glob(pattern))
    return digest(
        " ".join([fingerprint(modules, kernels=False), *map(file_digest, paths)])
    )


SOURCES = {
    "mechanisms.json": made_of(
        ["slay.attention.facts", *map(ATTENTION.path, CONFIG.attention)]
    ),
    "paper/slay.pdf": made_of(
        ["slay.report.paper"],
        "paper/main.tex.j2",
        "paper/sections/*",
        "paper/references.bib",
        "paper/claims.yaml",
        PRINTED,
        RUNS,
    ),
    "paper/arxiv.tar.gz": made_of(["slay.report.paper"]),
}
for name in JOBS:
    SOURCES[f"data/{name}.csv"] = made_of(["slay.report.aggregate"])
for name in PAGES:
    SOURCES[f"pages/{name}.html"] = made_of(["slay.report.page"])
for name in FIGURES:
    SOURCES[f"figures/{name}.pdf"] = made_of(
        [f"slay.report.figures.{name}"], *FILES.get(f"figures/{name}", [])
    )
for name in TABLES:
    SOURCES[f"tables/{name}.tex"] = made_of(
        [module_of(name)],
        f"paper/tables/{name}.tex.j2",
        *FILES.get(f"tables/{name}", []),
    )

NOTE = Path(f"{HERE}/sources.json")


def noted_sources():
    """Return the recorded digest of each rendered file's sources, by path in the run."""
    try:
        return json.loads(NOTE.read_text())
    except (OSError, ValueError):  # nothing was recorded
        return {}


def note_sources():
    """Record the source digests of this workflow's files, which are all up to date now."""
    made = planned_files()
    noted = noted_sources()
    for path, source in SOURCES.items():
        for draft in ("", "draft/"):
            if f"{HERE}/{draft}{path}" in made:
                noted[f"{draft}{path}"] = source
    files.write(NOTE, json.dumps(noted, indent=1, sort_keys=True) + "\n")


STALE = set()  # existing files to be made again
FORGOTTEN = set()  # to be made again if Snakemake has no params of theirs to compare
if is_planning():
    for job in BY_PATH.values():
        path = here(job.path)
        found = check(job, Path(path))
        if found and found.kind == "cut short":
            os.replace(path, f"{path}.cut-short")
            print(
                f"{path}: cut short; put aside, to be measured again", file=sys.stderr
            )
        elif found and found.kind == "stale":
            STALE.add(path)
    for path, text in PLANS.items():
        if os.path.exists(path) and Path(path).read_text() != text:
            STALE.add(path)
    for path, source in noted_sources().items():
        if SOURCES.get(path.removeprefix("draft/"), source) != source:
            FORGOTTEN.add(f"{HERE}/{path}")


@cache
def renew():
    """Make Snakemake plan again what is out of date; called once, while it plans."""
    look_for_slurm()
    release_lock()
    sign_with_lock()
    rerun(STALE.union(path for path in FORGOTTEN if not is_known(path)))


def up_to_date(wildcards):
    """Input function without input files, for rules whose files Snakemake itself takes as current."""
    if is_planning():
        renew()
    return []
