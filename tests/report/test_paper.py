"""The paper's own templates: the text follows the results, what is missing is left out."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from slay.attention.facts import facts
from slay.errors import SlayError
from slay.pipeline.record import Record
from slay.report.aggregate import summarise, tabulate
from slay.report.claims import judge
from slay.report.context import whole
from slay.report.latex import environment, render
from slay.report.paper import build, complaints
from slay.report.published import printed
from slay.report.results import Estimate, Missing, Results
from slay.report.shown import empty_table
from slay.report.tables import render_table

PAPER = Path("paper")
NAMES = ["standard", "uniform", "yat-performer-anchor", "yat-quadratic"]
GOOD = {"uniform": 0.8, "yat-performer-anchor": 0.9, "yat-quadratic": 0.2, "standard": 0.7}


def run_with(folder, errors=None, statuses=None):
    """A run of one experiment: output errors of mechanisms at d = 32, over three seeds."""
    statuses = statuses or {}
    records = []
    for name, error in (errors or {}).items():
        for seed in range(3):
            params = {"attention": name, "options": {}, "epsilon": 1e-3, "device": "cpu"}
            params |= {"inputs": "isotropic", "head_dim": 32, "seq_len": 64, "seed": seed}
            status = statuses.get(name, "ok")
            metrics = {"rel_l2": error + 0.001 * seed, "kernel_error": error, "num_features": 8}
            record = Record(
                schema=1,
                experiment="quality",
                params=params,
                status=status,
                metrics=metrics if status == "ok" else {},
                provenance={
                    "code": "c0de", "commit": "f" * 40, "dirty": False, "device": "cpu",
                    "host": "here", "platform": "Linux", "processor": "a processor", "cores": 2,
                    "threads": 1, "python": "3.11", "torch": "2.8", "seconds": 1.0,
                    "started": "2026-01-01T00:00:00+00:00", "peak_memory_bytes": 1,
                },
            )  # fmt: skip
            records.append((f"{name}/{seed}.json", record, False))
    (folder / "data").mkdir(parents=True)
    rows = tabulate(records)
    rows.to_csv(folder / "data/quality.csv", index=False)
    summarise(rows).to_csv(folder / "data/quality.summary.csv", index=False)
    config = {"run": "made", "title": "made up", "epsilon": 1e-3, "attention": NAMES}
    config["experiments"] = {"quality": [{"head_dim": 32, "seq_len": 64}]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mechanisms.json").write_text(json.dumps([facts(name, 32) for name in NAMES]))
    return Results(folder)


def text_of(results, name):
    env = environment(PAPER)
    return " ".join(render(env, name, **whole(results, env, PAPER)).split())


def test_flipped_results_flip_abstract_and_table(tmp_path):
    good = run_with(tmp_path / "good", GOOD)
    bad = run_with(tmp_path / "bad", GOOD | {"yat-quadratic": 0.75, "yat-performer-anchor": 0.1})
    for sentence in (
        "the relative output error of the quadratic features is 0.20",
        "the anchor features are about as far from the target",
    ):
        assert sentence in text_of(good, "sections/abstract.tex.j2")
        assert sentence not in text_of(bad, "sections/abstract.tex.j2")
    for results, verdict in ((good, "holds"), (bad, r"\textbf{fails}")):
        table = " ".join(render_table("claims-ours", results, PAPER).split())
        number = "0.20" if results is good else "0.75"
        row = next(row for row in table.split(r"\\[1.5pt]") if f"is {number}, at most" in row)
        assert row.endswith(f"& {verdict} ")


def test_what_does_not_hold_is_denied_in_the_text_and_what_is_open_is_not_said(tmp_path):
    bad = text_of(run_with(tmp_path, GOOD | {"yat-quadratic": 0.75}), "sections/conclusion.tex.j2")
    assert "as close to the target" not in bad
    claims = whole(Results(tmp_path), environment(PAPER), PAPER)
    assert "does not hold" in claims["claim"]("quadratic-output")
    assert claims["claim"]("quadratic-tasks") == ""


def test_claims_are_many_and_from_both_sides():
    claims = yaml.safe_load((PAPER / "claims.yaml").read_text())
    sources = [claim["source"] for claim in claims]
    assert len(sources) - sources.count("ours") >= 15
    assert sources.count("ours") >= 10
    used = "".join(path.read_text() for path in (PAPER / "sections").iterdir())
    ids = {claim["id"] for claim in claims}
    assert set(re.findall(r"(?:claim|holds)\('([\w-]+)'\)", used)) <= ids


NUMBER = re.compile(r"(?<![\w.^])(\d+(?:\.(\d+))?)(?:\\times10\^(\d))?")


def test_numbers_of_the_study_in_claims_are_those_that_it_printed():
    known = list(leaves(printed()))
    for claim in yaml.safe_load((PAPER / "claims.yaml").read_text()):
        if claim["source"] == "ours":
            continue
        own = set(re.findall(r"\d+(?:\.\d+)?", f"{claim['holds']} {claim['values']}"))
        text = re.sub(r"\\VAR\{.*?\}", "", claim["sentence"])
        for number, decimals, power in NUMBER.findall(" ".join(re.findall(r"\$.*?\$", text))):
            unit = 10.0 ** int(power or 0)
            off = min(abs(float(number) - value / unit) for value in known)
            assert number in own or off <= 0.5001 * 10 ** -len(decimals), (claim["id"], number)


def leaves(tree):
    """Every number of a nested mapping, keys that are lengths too."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(key)
            yield from leaves(value)
    elif isinstance(tree, int | float):
        yield float(tree)


def test_a_claim_about_time_asks_for_more_than_a_median():
    for claim in yaml.safe_load((PAPER / "claims.yaml").read_text()):
        sources = " ".join(claim["values"].values())
        if "'ratio'" in sources or "'ablation', 'latency_ms'" in sources:
            beyond = {
                name for name, value in claim["values"].items() if re.search("_q[13]'", value)
            }
            assert set(re.findall(r"\w+", claim["holds"])) & beyond, claim["id"]


@pytest.mark.parametrize(
    ("name", "holding", "change"),
    [
        ("published-language-yat", {"yat": 7, "linear": 8, "performer": 9}, {"performer": 6}),
        ("published-language-yat", {"yat": 7, "linear": 8, "performer": 9}, {"yat-spherical": 7}),
        ("published-ablation-speed", {"yat-performer-anchor": 7}, {"yat-performer-rm": 7}),
        ("language-softmax", {"standard": 7}, {"uniform": 6}),
    ],
)
def test_the_best_of_all_is_better_than_each(tmp_path, name, holding, change):
    entries = yaml.safe_load((PAPER / "claims.yaml").read_text())
    (tmp_path / "claims.yaml").write_text(
        yaml.safe_dump([entry for entry in entries if entry["id"] == name], sort_keys=False)
    )

    def verdict(numbers):
        def value(experiment, metric, attention, **where):
            return Estimate(found := numbers.get(attention, 10), 0, 1, found, found)

        def least(experiment, metric, attention=None, **where):
            return numbers.get(attention, 10) if attention else min(numbers.values())

        context = {"value": value, "least": least}
        return judge(tmp_path / "claims.yaml", environment(tmp_path), context)[name].status

    assert verdict(holding) == "holds"
    assert verdict(holding | change) == "fails"


def test_a_job_out_of_memory_says_so_and_a_table_without_rows_is_none(tmp_path):
    results = run_with(tmp_path, GOOD, statuses={"yat-quadratic": "oom"})
    found = results.value("quality", "rel_l2", attention="yat-quadratic")
    assert isinstance(found, Missing)
    table = render_table("quality", results, PAPER)
    row = next(line for line in table.split(r"\\") if "yat-quadratic" in line)
    assert "oom" in row
    note = table[table.index(r"\end{tabular}") :]
    assert "oom: out of memory" in note
    assert "---: not measured" in note
    for name in ("scaling", "tasks", "language", "budget", "machines"):
        assert render_table(name, results, PAPER) == empty_table()


@pytest.mark.parametrize(
    ("log", "found"),
    [
        ("Overfull \\hbox (1.9pt too wide) in paragraph at lines 1--2", 0),
        ("Overfull \\hbox (12.3pt too wide) in paragraph at lines 1--2", 1),
        ("Missing character: There is no ε in font ptmr8t!", 1),
        ("LaTeX Warning: Reference `tab:x' on page 1 undefined on input line 3.", 1),
        ("Package natbib Warning: Citation `y' on page 1 undefined on input line 3.", 1),
        ("Underfull \\hbox (badness 10000) in paragraph at lines 1--2", 0),
    ],
)
def test_complaints(log, found):
    assert len(complaints(log)) == found


@pytest.mark.tex
@pytest.mark.parametrize(
    ("where", "mistake", "says"),
    [
        ("sections/related.tex.j2", "\\nosuchcommand", r"main\.tex):(\d+): Undefined"),
        ("references.bib", "@book{luna2026slay,", r"references\.bib):(\d+): Repeated entry"),
    ],
)
def test_a_mistake_is_file_line_and_message(tmp_path, where, mistake, says):
    results = run_with(tmp_path / "run", GOOD)
    templates = tmp_path / "paper"
    shutil.copytree(PAPER, templates)
    broken = templates / where
    broken.write_text(
        f"{broken.read_text()}{mistake}\ntitle={{x}}}}\n"
        if "bib" in where
        else f"{broken.read_text()}{mistake}\n"
    )
    for name in ("mechanisms", "claims", "claims-ours"):
        (results.folder / "tables").mkdir(exist_ok=True)
        (results.folder / f"tables/{name}.tex").write_text(render_table(name, results, templates))
    with pytest.raises(SlayError) as caught:
        build(results, templates, results.folder / "paper")
    message = str(caught.value)
    found = re.match(rf"LaTeX failed: (\S+{says}", message)
    assert found, message
    assert "\n" not in message
    assert mistake in Path(found[1]).read_text().splitlines()[int(found[2]) - 1]
