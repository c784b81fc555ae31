"""The report in a browser without a network: every figure and page is shown, with a caption."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess

import pytest

from slay.report.sources import FIGURES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.tex,
    pytest.mark.xdist_group("report"),
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt-get install chromium"),
]

FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
FLAGS += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=60000"]

# Before anything of the page: what goes wrong in it, from its first line on.
WATCH = """<script>
const wrong = [];
addEventListener("error", e => wrong.push(e.message || `not loaded: ${e.target.outerHTML}`), true);
addEventListener("unhandledrejection", e => wrong.push(`${e.reason}`));
console.error = (...words) => wrong.push(words.join(" "));
</script>"""

# After it: open every result of every category and look at it, then at its caption.
WALK = """<script>
const all = (query) => [...document.querySelectorAll(query)];
const until = async (find) => {
  for (let i = 0; i < 100; i++) {
    const found = find();
    if (found) return found;
    await new Promise(done => setTimeout(done, 20));
  }
  throw new Error(`waited in vain for ${find}`);
};
const entry = (name) => all("#app nav li a").find(a => a.textContent.trim() === name);
const home = async () => {
  (await until(() => all("#app nav ol a")[0])).click();
  await until(() => entry("Figures"));
};
const look = async () => {
  const shown = await until(() => all("#app img:not(nav img), #app iframe")[0]);
  if (shown.tagName === "IMG") {
    await until(() => shown.complete);
    return {kind: "image", size: shown.naturalWidth * shown.naturalHeight};
  }
  const text = await (await fetch(shown.src)).text();
  return {kind: "document", size: text.length, text: text.slice(0, 20000)};
};
const walk = async () => {
  const found = {statistics: 0, results: []};
  const names = ["Configuration", "Figures", "Numbers", "Paper"];
  for (const category of names) {
    await home();
    const rows = async () => {
      await home();
      entry(category).click();
      return until(() => all("#app nav tbody tr").length && all("#app nav tbody tr"));
    };
    for (let i = 0; i < (await rows()).length; i++) {
      const row = (await rows())[i];
      const [eye, about] = row.querySelectorAll("a");
      const result = {category, name: row.textContent.trim()};
      eye.click();
      Object.assign(result, await look());
      about.click();
      const caption = await until(() => all("#app nav .prose, #app nav article")[0]);
      found.results.push({...result, caption: caption.textContent.trim()});
    }
  }
  await home();
  entry("Statistics").click();
  await until(() => all("#runtimes svg, #runtimes canvas").length);
  found.statistics = all("#runtimes svg, #runtimes canvas").length;
  return found;
};
addEventListener("load", async () => {
  const found = await walk().catch(error => ({error: `${error.stack}`}));
  const asked = performance.getEntriesByType("resource").map(entry => entry.name);
  const outside = asked.filter(name => !name.startsWith("data:"));
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify({...found, wrong, outside});
  document.body.replaceChildren(told);
});
</script>"""


@pytest.fixture(scope="module")
def seen(built, tmp_path_factory):
    """What a reader of the smoke run's report finds in it."""
    folder = tmp_path_factory.mktemp("browser")
    text = (built.path / "results/smoke/report.html").read_text()
    page = folder / "report.html"
    page.write_text(text.replace("<head>", f"<head>{WATCH}", 1) + WALK)
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom"]
    done = subprocess.run(
        [*command, page.as_uri()], capture_output=True, text=True, timeout=300, check=True
    )
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert told, done.stdout[-2000:]
    found = json.loads(html.unescape(told[1]))
    assert "error" not in found, found["error"]
    return found


def test_nothing_goes_wrong_and_nothing_comes_from_outside(seen):
    assert seen["wrong"] == []
    assert seen["outside"] == []
    assert seen["statistics"] > 0


def test_every_figure_is_shown(seen):
    figures = {r["name"]: r["size"] for r in seen["results"] if r["category"] == "Figures"}
    assert figures.keys() == FIGURES.keys()
    assert min(figures.values()) > 10_000  # pixels


def test_every_experiment_has_its_numbers(seen):
    pages = {r["name"]: r["text"] for r in seen["results"] if r["category"] == "Numbers"}
    assert {"quality", "scaling", "tasks", "language"} <= pages.keys()
    assert "majority" in pages["tasks"]
    assert "±" in pages["quality"]


def test_configuration_and_paper_are_there(seen):
    by_category = {r["category"]: r["text"] for r in seen["results"] if "text" in r}
    assert "numbers mean nothing" in by_category["Configuration"]
    assert by_category["Paper"].startswith("%PDF")


def test_every_result_has_a_caption(seen):
    captions = [r["caption"] for r in seen["results"]]
    assert all(len(caption) > 40 for caption in captions)
    assert len(set(captions)) == len(captions)
