"""What the embedded cluster decides before it does anything: addresses, command lines, configuration, image mode."""

import itertools
import os
import tomllib
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from dev.cluster import components, containerd, network, pki, store, toolchain
from dev.cluster.errors import ClusterError
from dev.cluster.settings import INDEXES, Settings, networks


def settings(**changed: object) -> Settings:
    facts: dict[str, object] = {
        "name": "test",
        "index": 7,
        "directory": Path("/cache/clusters/test"),
        "binaries": Path("/cache/bin/key"),
        "node": True,
        "store": Path("/cache/store/0/containerd"),
    }
    return Settings(**(facts | changed))  # type: ignore[arg-type]


def all_components(of: Settings) -> dict[str, tuple[str, ...]]:
    return {c.name: c.arguments for c in (*components.before_api(of), *components.after_api(of))}


def test_no_two_indexes_share_an_address() -> None:
    every = sorted(net for index in INDEXES for net in networks(index).values())
    assert not any(first.overlaps(second) for first, second in itertools.pairwise(every))


def test_every_network_is_private() -> None:
    assert all(net.is_private for index in INDEXES for net in networks(index).values())


def test_the_first_index_is_taken_on_an_idle_machine() -> None:
    assert network.free_indexes(taken=(), used_networks=())[0] == INDEXES[0]


def test_a_taken_index_is_passed_over() -> None:
    assert network.free_indexes(taken={1, 3}, used_networks=())[:2] == [2, 4]


@pytest.mark.parametrize("used", ["10.201.1.0/24", "10.202.1.128/25", "10.208.16.7/32", "10.224.16.0/20"])
def test_an_index_whose_networks_are_in_use_is_passed_over(used: str) -> None:
    assert network.free_indexes(taken=(), used_networks=[IPv4Network(used)])[0] == 2


def test_no_index_is_free_where_all_of_ten_is_routed() -> None:
    assert network.free_indexes(taken=(), used_networks=[IPv4Network("10.0.0.0/8")]) == []


def test_an_index_can_be_claimed_once_until_it_is_let_go() -> None:
    first = network.claim(INDEXES[-1])
    assert first
    with first:
        assert network.claim(INDEXES[-1]) is None
    again = network.claim(INDEXES[-1])
    assert again
    again.close()


def test_settings_survive_being_written_down(tmp_path: Path) -> None:
    written = settings(directory=tmp_path, environments=Path("/cache/venvs"), kwok_nodes=3)
    written.save()
    assert Settings.load(tmp_path) == written


def test_a_node_runs_every_component_of_a_node() -> None:
    assert list(all_components(settings())) == [
        "containerd",
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "kubelet",
        "kube-proxy",
    ]


def test_fake_nodes_need_no_runtime() -> None:
    names = all_components(settings(node=False, kwok_nodes=1, store=None))
    assert "kwok" in names
    assert not {"containerd", "kubelet", "kube-proxy"} & names.keys()


def test_every_component_is_a_program_that_the_toolchain_builds() -> None:
    assert all_components(settings(kwok_nodes=1)).keys() <= {binary.name for binary in toolchain.BINARIES}


def test_authorization_is_by_role_and_node() -> None:
    arguments = all_components(settings())["kube-apiserver"]
    assert "--authorization-mode=Node,RBAC" in arguments
    assert "--enable-admission-plugins=NodeRestriction" in arguments


def test_each_user_named_on_a_command_line_gets_a_kubeconfig() -> None:
    of = settings(kwok_nodes=1)
    named = {word.split("/")[-1] for words in all_components(of).values() for word in words if "kubeconfig=" in word}
    assert named <= {f"{user}.kubeconfig" for user in pki.users(node=True)}


def test_containerd_keeps_its_images_in_the_store_and_mounts_nothing_by_default() -> None:
    text = components.config_files(settings())["containerd.toml"]
    config = tomllib.loads(text)
    assert config["root"] == "/cache/store/0/containerd"
    assert "base_runtime_spec" not in text


def test_environments_are_mounted_read_only_into_every_container() -> None:
    of = settings(environments=Path("/cache/venvs"))
    config = tomllib.loads(components.config_files(of)["containerd.toml"])
    runtime = config["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]["runc"]
    assert runtime["base_runtime_spec"] == "/cache/clusters/test/etc/runtime-spec.json"
    mounts = components.with_environments({"mounts": [{"destination": "/proc"}]}, of)["mounts"]
    assert isinstance(mounts, list)
    assert [mount["destination"] for mount in mounts] == ["/proc", "/opt/genrm/environments"]
    assert "ro" in mounts[1]["options"]


@pytest.mark.parametrize(("node", "tainted"), [(True, True), (False, False)])
def test_fake_nodes_are_tainted_only_beside_a_real_one(node: bool, tainted: bool) -> None:
    nodes = components.fake_nodes(settings(node=node, kwok_nodes=2))
    assert [item["metadata"]["name"] for item in nodes] == ["fake-0", "fake-1"]  # type: ignore[index]
    assert all(bool(item["spec"]["taints"]) is tainted for item in nodes)  # type: ignore[index]


@pytest.mark.parametrize(
    ("forced", "free_bytes", "imported", "spare", "mounted"),
    [
        (None, 10**9, False, False, True),
        (None, 10**12, False, False, False),
        (None, 10**9, True, False, False),
        (None, 10**12, False, True, True),
        (None, 10**12, True, True, False),
        ("", 10**12, False, False, False),
        ("mount", 10**12, True, False, True),
        ("image", 0, False, True, False),
    ],
)
def test_environments_are_mounted_where_a_copy_has_no_room(
    forced: str | None, free_bytes: int, imported: bool, spare: bool, mounted: bool
) -> None:
    assert store.mounts_environments(forced, free_bytes, imported, spare) is mounted


def test_an_unknown_image_mode_is_refused() -> None:
    with pytest.raises(ClusterError, match="say mount or image"):
        store.mounts_environments("maybe", 0, False, False)


def test_a_store_remembers_what_it_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENRM_CACHE", str(tmp_path / "cache"))
    kept = store.Store(tmp_path)
    assert kept.key_of("local/base:1") is None
    kept.note("local/base:1", "a")
    kept.note("local/pause:1", "b")
    kept.note("local/base:1", "c")
    assert (kept.key_of("local/base:1"), kept.key_of("local/pause:1")) == ("c", "b")


def test_a_store_serves_one_cluster_at_a_time(tmp_path: Path) -> None:
    _, lock = store.take(tmp_path)
    with pytest.raises(ClusterError, match="in use"):
        store.take(tmp_path)
    os.close(lock)
    os.close(store.take(tmp_path)[1])


@pytest.mark.parametrize(
    ("reported", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.19.8 linux/amd64", (1, 19)),
        ("go version devel +a1b2c3", None),
    ],
)
def test_the_go_version_is_read_from_what_go_prints(reported: str, version: tuple[int, int] | None) -> None:
    assert toolchain.go_version(reported) == version


def test_the_folder_of_programs_changes_with_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    before = toolchain.bin_dir()
    assert toolchain.bin_dir() == before
    monkeypatch.setattr(toolchain, "BINARIES", toolchain.BINARIES[1:])
    assert toolchain.bin_dir() != before


def test_a_program_of_a_pinned_module_is_built_in_that_module_and_others_by_version(tmp_path: Path) -> None:
    by_name = {binary.name: binary for binary in toolchain.BINARIES}
    words, folder = toolchain.build_command([by_name["etcd"], by_name["etcdctl"]], tmp_path)
    assert words[0] == "build"
    assert words[-2:] == ["go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/etcdctl/v3"]
    assert folder.name == "etcd"
    words, _ = toolchain.build_command([by_name["ctr"]], tmp_path)
    assert words[0] == "install"
    assert words[-1].endswith(f"@v{toolchain.CONTAINERD}")


def test_a_kubeconfig_needs_no_other_file() -> None:
    made = pki.kubeconfig("https://10.201.7.2:6443", "Q0E=", "reader", {"token": "secret"}, "judges")
    assert made["contexts"] == [
        {"name": "genrm", "context": {"cluster": "genrm", "user": "reader", "namespace": "judges"}}
    ]
    assert made["users"] == [{"name": "reader", "user": {"token": "secret"}}]


IMAGES = {
    "docker.io/local/a:1": "sha256:11",
    "docker.io/local/b:1": "sha256:22",
    "localhost/local/b:1": "sha256:22",
    "sha256:aa": "sha256:11",
    "sha256:bb": "sha256:22",
    "sha256:cc": "sha256:33",
}


def test_an_image_that_only_its_digest_names_is_a_leftover() -> None:
    assert containerd.nameless_images(IMAGES) == ["sha256:cc"]


@pytest.mark.parametrize(
    ("ref", "names"),
    [
        ("local/a:1", ["docker.io/local/a:1", "sha256:aa"]),
        ("docker.io/local/a:1", ["docker.io/local/a:1", "sha256:aa"]),
        ("local/b:1", ["docker.io/local/b:1"]),
        ("local/c:1", []),
    ],
)
def test_an_image_goes_with_its_digests_name_unless_another_name_shares_it(ref: str, names: list[str]) -> None:
    assert containerd.names_to_remove(IMAGES, ref) == names
