"""What one cluster is made of: its name, its folders and its addresses.

Everything else (command lines, certificates, manifests, routes) is computed from a `Settings` value. It is written to
the cluster's folder, so that the box, its keeper and later commands see the same. A cluster owns the *index* N, and
with it these networks, which exist between the host and the box only:

    10.201.N.0/24          host (.1) and box (.2), over one veth pair
    10.202.N.0/24          real pods
    10.208.0.0/12, /20 N   fake pods (kwok)
    10.224.0.0/12, /20 N   Services
"""

import json
from dataclasses import asdict, dataclass
from ipaddress import IPv4Network
from pathlib import Path

INDEXES = range(1, 250)

API_PORT = 6443
ETCD_PORT = 2379
ETCD_PEER_PORT = 2380
NODE_NAME = "node"
ENVIRONMENTS_MOUNT = "/opt/genrm/environments"


def networks(index: int) -> dict[str, IPv4Network]:
    """Return the networks of the cluster with this index by what they are for."""

    def twentieth(base: str) -> IPv4Network:
        return IPv4Network((int(IPv4Network(base).network_address) + (index << 12), 20))

    return {
        "link": IPv4Network(f"10.201.{index}.0/24"),
        "pods": IPv4Network(f"10.202.{index}.0/24"),
        "fake pods": twentieth("10.208.0.0/12"),
        "services": twentieth("10.224.0.0/12"),
    }


@dataclass(frozen=True, slots=True)
class Settings:
    """One cluster. `store` is containerd's root; `environments` is shown read-only to every container if set."""

    name: str
    index: int
    directory: Path
    binaries: Path
    node: bool
    kwok_nodes: int = 0
    store: Path | None = None
    environments: Path | None = None
    die_with_parent: bool = False

    @property
    def host_address(self) -> str:
        return str(networks(self.index)["link"][1])

    @property
    def address(self) -> str:
        """The box's own address: the API server's and the node's."""
        return str(networks(self.index)["link"][2])

    @property
    def link(self) -> str:
        return str(networks(self.index)["link"])

    @property
    def pods(self) -> str:
        return str(networks(self.index)["pods"])

    @property
    def fake_pods(self) -> str:
        return str(networks(self.index)["fake pods"])

    @property
    def services(self) -> str:
        return str(networks(self.index)["services"])

    @property
    def api_service_address(self) -> str:
        return str(networks(self.index)["services"][1])

    @property
    def dns_address(self) -> str:
        return str(networks(self.index)["services"][10])

    @property
    def server(self) -> str:
        return f"https://{self.address}:{API_PORT}"

    @property
    def interface(self) -> str:
        """The host's end of the veth pair."""
        return f"genrm{self.index}"

    @property
    def cgroup(self) -> str:
        """The folder of the box in every cgroup hierarchy."""
        return f"genrm-{self.index}"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def etc(self) -> Path:
        return self.directory / "etc"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def kubeconfig(self, user: str) -> Path:
        return self.directory / f"{user}.kubeconfig"

    def save(self) -> None:
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}
        (self.directory / "settings.json").write_text(json.dumps(plain, indent=1))

    @classmethod
    def load(cls, directory: Path) -> "Settings":
        plain = json.loads((directory / "settings.json").read_text())
        paths = {key: Path(plain[key]) for key in ("directory", "binaries", "store", "environments") if plain[key]}
        return cls(**(plain | paths))
