"""What `--out` names is written where it leads, with the permissions that the umask leaves."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

from slay import files
from slay.cli import main
from slay.errors import SlayError
from slay.files import new_folder
from slay.models.gpt import GPT, GPTConfig, load
from slay.models.gpt import save as save_model
from slay.report.published import publish_devices
from slay.report.style import save as save_figure
from slay.training.language.tokens import Writer

WRITERS = {
    "files": lambda path: files.write(path, "text"),
    "bytes": lambda path: files.write(path, b"text"),
    "figure": lambda path: save_figure(Figure(), path, "test"),
    "figure's PNG": lambda path: save_figure(Figure(), path.with_suffix(".pdf"), "test"),
    "copy": lambda path: files.copy(_source(path), path),
}


def _source(path):
    source = path.with_name("source")
    source.write_bytes(b"text")
    return source


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.fixture
def path(request, tmp_path):
    png = "PNG" in request.node.callspec.params["write"]
    return tmp_path / ("there.png" if png else "there.pdf")


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_followed(tmp_path, write, path, there):
    """A symbolic link given as --out is replaced by a regular file."""
    target = tmp_path / "elsewhere" / "target"
    if there:
        target.parent.mkdir()
        target.write_text("older")
    path.symlink_to("elsewhere/target")
    write(path)
    assert path.is_symlink()
    assert target.is_file()
    assert target.read_bytes() != b"older"
    assert [p.name for p in target.parent.iterdir()] == ["target"]


def test_a_pipe_is_written_into(write, path):
    """A named pipe given as --out is replaced by a regular file."""
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_bytes()))
    reader.start()
    while reader.is_alive():
        try:
            write(path)
            break
        except SlayError:  # the reader is not there yet
            continue
    reader.join()
    assert read[0]
    assert path.is_fifo()


def test_a_pipe_that_nobody_reads_is_one_line(write, path):
    """--out hangs for ever at a named pipe that nobody reads."""
    os.mkfifo(path)
    with pytest.raises(SlayError, match=f"{path}: cannot be written .nobody reads"):
        write(path)
    assert path.is_fifo()


def test_a_folder_is_refused(write, path):
    """A folder given as --out ends in a traceback, or leaves a temporary file."""
    path.mkdir()
    with pytest.raises(SlayError, match="cannot be written"):
        write(path)
    assert path.is_dir()
    assert not [p for p in path.parent.iterdir() if p.name.startswith(".")]


def test_a_loop_of_links_is_refused(write, path):
    """Symbolic links in a circle end in a traceback."""
    path.symlink_to(path.name)
    with pytest.raises(SlayError, match="cannot be written"):
        write(path)


def test_standard_output_is_written_into(capfd):
    """/dev/stdout given as --out is replaced by a regular file, or refused."""
    files.write(Path("/dev/fd/1"), "text")
    assert capfd.readouterr().out == "text"


@pytest.fixture(params=[0o022, 0o077, 0o002], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def permissions(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_follow_the_umask(write, path, umask):
    """Records and figures are readable by all, or by nobody else, whatever the umask says."""
    write(path)
    assert permissions(path) == 0o666 & ~umask


def test_models_follow_the_umask(tmp_path, umask):
    """model.safetensors can be read by nobody else, whatever the umask says."""
    save_model(_small(), tmp_path)
    found = {path.name: permissions(path) for path in tmp_path.iterdir()}
    assert found == dict.fromkeys(["model.safetensors", "config.json"], 0o666 & ~umask)


def test_permissions_of_an_older_file_stay(tmp_path):
    """A private file is readable by all after it was written again."""
    path = tmp_path / "there"
    files.write(path, "older")
    path.chmod(0o640)
    files.write(path, "newer")
    assert permissions(path) == 0o640


def test_a_model_is_written_through_links(tmp_path):
    """A link to a model's weights on another disk is replaced by a regular file."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "model.safetensors").symlink_to("disk/weights")
    save_model(_small(), tmp_path)
    assert (tmp_path / "model.safetensors").is_symlink()
    load(tmp_path)


def test_tokens_are_written_through_a_link_to_a_folder(tmp_path):
    """`slay data prepare --out` replaces a link to a folder that is not there yet."""
    (tmp_path / "tokens").symlink_to("disk")
    with new_folder(tmp_path / "tokens") as folder:
        Writer(folder / "train.bin", name="t", tokenizer="bytes", vocab_size=257, end=256).close()
    assert (tmp_path / "tokens").is_symlink()
    assert {p.name for p in (tmp_path / "disk").iterdir()} == {"train.bin", "train.json"}


def test_files_of_devices_are_published_through_links(tmp_path):
    """`slay publish` replaces links, or fails at what is no regular file, with a traceback."""
    (tmp_path / "from").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "from/gpu.json").write_text("{}")
    (tmp_path / "to/gpu.json").symlink_to("../kept.json")
    publish_devices(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "kept.json").read_text() == "{}"
    (tmp_path / "to/gpu.json").unlink()
    os.mkfifo(tmp_path / "to/gpu.json")
    with pytest.raises(SlayError, match="nobody reads"):
        publish_devices(tmp_path / "from", tmp_path / "to")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_record_goes_where_its_name_leads(tmp_path, kind):
    """`slay run --out` replaces a link, a named pipe or a device by a regular file."""
    out = tmp_path / "record.json"
    make = {"link": lambda: out.symlink_to("real.json"), "pipe": lambda: os.mkfifo(out)}
    make.get(kind, out.mkdir)()
    words = ["run", "quality", "--attention", "linear", "--seq-len", "8", "--head-dim", "4"]
    done = CliRunner().invoke(main, [*words, "--device", "cpu", "--out", str(out)])
    assert done.exit_code == {"link": 0, "pipe": 1, "folder": 2}[kind], done.output
    if kind == "link":
        assert out.is_symlink()
        assert (tmp_path / "real.json").is_file()
    else:
        says = f"{out}: cannot be written" if kind == "pipe" else f"File '{out}' is a directory"
        assert says in done.output.splitlines()[-1]
        assert [p.name for p in tmp_path.iterdir()] == ["record.json"]
        assert not out.is_file()


def _small():
    return GPT(GPTConfig(vocab_size=8, context_len=4, n_layers=1, n_heads=1, embed_dim=4))
