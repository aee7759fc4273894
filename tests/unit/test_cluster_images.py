"""An image written to a pipe is a docker archive that holds the files as they were."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from dev.images import Image, Layer, engine
from dev.images import archive as archive_module


class Pipe:
    """Takes bytes and can neither seek nor tell."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def write(self, data: bytes) -> None:
        self.chunks.append(data)


def written(image: Image) -> tarfile.TarFile:
    pipe = Pipe()
    image.write(pipe)
    return tarfile.open(fileobj=io.BytesIO(b"".join(pipe.chunks)))


def member(archive: tarfile.TarFile, name: str) -> bytes:
    found = archive.extractfile(name)
    assert found
    return found.read()


def layer_of(archive: tarfile.TarFile, number: int = 0) -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(member(archive, f"layer{number}.tar")))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "module.py").write_text("x = 1\n")
    os.utime(tmp_path / "package" / "module.py", (1_000_000, 1_000_000))
    (tmp_path / "package" / ("long" * 60)).write_bytes(b"n" * 1000)
    (tmp_path / "package" / "alias").symlink_to("module.py")
    (tmp_path / "program").write_bytes(b"\x7fELF")
    (tmp_path / "program").chmod(0o755)
    return tmp_path


def image(tree: Path) -> Image:
    layer = Layer(
        ((tree / "package", "/opt/package"), (tree / "program", "/program")), links=(("/opt/link", "package"),)
    )
    return Image("local/test:1", "key", (layer,), entrypoint=("/program",), environment=("A=b",))


def test_the_manifest_names_the_image_its_layers_and_their_digests(tree: Path) -> None:
    archive = written(image(tree))
    (manifest,) = json.loads(member(archive, "manifest.json"))
    assert manifest["RepoTags"] == ["local/test:1"]
    config = json.loads(member(archive, manifest["Config"]))
    digests = [f"sha256:{hashlib.sha256(member(archive, name)).hexdigest()}" for name in manifest["Layers"]]
    assert config["rootfs"]["diff_ids"] == digests
    assert config["config"]["Entrypoint"] == ["/program"]
    assert "A=b" in config["config"]["Env"]


def test_files_keep_their_content_mode_and_time_and_belong_to_root(tree: Path) -> None:
    layer = layer_of(written(image(tree)))
    module = layer.getmember("opt/package/module.py")
    assert member(layer, "opt/package/module.py") == b"x = 1\n"
    assert module.mtime == 1_000_000, "Python compares it with the time noted in the compiled form"
    assert layer.getmember("program").mode == 0o755
    assert {(info.uid, info.gid) for info in layer} == {(0, 0)}


def test_long_names_and_links_arrive(tree: Path) -> None:
    layer = layer_of(written(image(tree)))
    assert len(member(layer, f"opt/package/{'long' * 60}")) == 1000
    assert layer.getmember("opt/package/alias").linkname == "module.py"
    assert layer.getmember("opt/link").linkname == "package"


def test_a_file_that_grows_meanwhile_is_an_error_and_no_broken_archive(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = archive_module._header

    def growing(info: tarfile.TarInfo) -> bytes:
        if info.name == "program":
            (tree / "program").write_bytes(b"\x7fELF and more")
        return header(info)

    monkeypatch.setattr(archive_module, "_header", growing)
    with pytest.raises(ValueError, match="changed its size"):
        image(tree).write(Pipe())


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    packages = tmp_path / "venvs" / "engine-1" / "lib" / "python3.11" / "site-packages"
    (packages / "vllm-0.32.0.dist-info").mkdir(parents=True)
    (packages.parents[1] / "libiomp5.so").touch()
    return tmp_path / "venvs" / "engine-1"


@pytest.fixture(autouse=True)
def no_debootstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("dev.images.recipes.make_rootfs", lambda: tmp_path)


def test_an_engine_image_holds_the_packages_where_the_systems_python_looks(environment: Path) -> None:
    _, packages = engine("local/engine:1", environment, None, "server").layers
    assert [target for _, target in packages.sources] == [
        "/usr/local/lib/python3.11/dist-packages",
        "/usr/local/lib/libiomp5.so",
    ]


def test_where_environments_are_mounted_the_image_points_to_them(environment: Path) -> None:
    _, links = engine("local/engine:1", environment, (environment.parent, "/seen"), "server").layers
    assert not links.sources
    assert dict(links.links)["/usr/local/lib/python3.11/dist-packages"] == (
        "/seen/engine-1/lib/python3.11/site-packages"
    )


def test_an_engine_images_key_changes_with_its_packages(environment: Path) -> None:
    before = engine("local/engine:1", environment, None, "server").key
    next(environment.glob("lib/*/site-packages")).joinpath("torch-2.13.0.dist-info").mkdir()
    assert engine("local/engine:1", environment, None, "server").key != before


def test_a_folder_without_an_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no virtual environment"):
        engine("local/engine:1", tmp_path, None, "server")


@pytest.mark.parametrize("mounted", [False, True])
def test_what_is_imported_first_is_in_the_image_and_in_its_key(
    environment: Path, tmp_path: Path, mounted: bool
) -> None:
    shim = tmp_path / "shim"
    shim.mkdir()
    (shim / "kernel.py").write_text("x = 1")
    at = (environment.parent, "/seen") if mounted else None
    made = engine("local/engine:1", environment, at, "server", (shim, "/shim"))
    assert (shim, "/shim") in made.layers[1].sources
    assert made.environment == ("PYTHONPATH=/shim",)
    (shim / "kernel.py").write_text("x = 2")
    assert engine("local/engine:1", environment, at, "server", (shim, "/shim")).key != made.key
