"""Certificates and kubeconfigs: one certificate authority per cluster, one certificate per server and client."""

import json
from base64 import b64encode
from pathlib import Path

from dev.cluster.commands import run
from dev.cluster.settings import NODE_NAME, Settings

_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30")


def users(node: bool) -> dict[str, str]:
    """Return the subject of each client that gets a certificate and a kubeconfig, by the name of its files."""
    names = {
        "admin": "/O=system:masters/CN=admin",
        "controller-manager": "/CN=system:kube-controller-manager",
        "scheduler": "/CN=system:kube-scheduler",
    }
    if node:
        names["kubelet"] = f"/O=system:nodes/CN=system:node:{NODE_NAME}"
        names["proxy"] = "/CN=system:kube-proxy"
    return names


def make_pki(settings: Settings) -> None:
    """Write the authority, all certificates and all kubeconfigs of a new cluster."""
    folder = settings.pki
    folder.mkdir()
    authority = ("-subj", "/CN=genrm-cluster-ca", "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    run("openssl", "req", "-x509", *_NEW_KEY, "-keyout", folder / "ca.key", "-out", folder / "ca.crt", *authority)
    run("openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", folder / "sa.key")
    run("openssl", "ec", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub")

    service = "kubernetes.default.svc"
    addresses = f"IP:{settings.address},IP:127.0.0.1,IP:{settings.api_service_address}"
    names = f"DNS:localhost,DNS:kubernetes.default,DNS:{service},DNS:{service}.cluster.local"
    _certificate(folder, "apiserver", "/CN=kube-apiserver", f"{addresses},{names}")
    _certificate(folder, "front-proxy", "/CN=front-proxy-client")
    if settings.node:
        node = f"/O=system:nodes/CN=system:node:{NODE_NAME}"
        _certificate(folder, "kubelet-serving", node, f"IP:{settings.address},DNS:{NODE_NAME}")
        _certificate(folder, "apiserver-kubelet", "/O=system:masters/CN=apiserver-kubelet")
    for user, subject in users(settings.node).items():
        _certificate(folder, user, subject)
        credentials = {f"client-{kind}-data": _base64(folder / f"{user}.{end}") for kind, end in _CLIENT_FILES}
        write_kubeconfig(settings, settings.kubeconfig(user), user, credentials)


_CLIENT_FILES = (("certificate", "crt"), ("key", "key"))


def _certificate(folder: Path, name: str, subject: str, alternatives: str = "") -> None:
    signer = ("-CA", folder / "ca.crt", "-CAkey", folder / "ca.key")
    out = ("-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt")
    use = ["-addext", "basicConstraints=CA:FALSE", "-addext", "extendedKeyUsage=serverAuth,clientAuth"]
    if alternatives:
        use += ["-addext", f"subjectAltName={alternatives}"]
    run("openssl", "req", "-x509", *_NEW_KEY, *signer, "-subj", subject, *use, *out)


def _base64(path: Path) -> str:
    return b64encode(path.read_bytes()).decode()


def kubeconfig(
    server: str, authority: str, user: str, credentials: dict[str, str], namespace: str
) -> dict[str, object]:
    """Return a kubeconfig that needs no other file."""
    context = {"cluster": "genrm", "user": user, "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "genrm",
        "clusters": [{"name": "genrm", "cluster": {"server": server, "certificate-authority-data": authority}}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": "genrm", "context": context}],
    }


def write_kubeconfig(
    settings: Settings, path: Path, user: str, credentials: dict[str, str], namespace: str = "default"
) -> None:
    """Write a kubeconfig for `credentials` (the fields of a kubeconfig user) that only its owner can read."""
    content = kubeconfig(settings.server, _base64(settings.pki / "ca.crt"), user, credentials, namespace)
    path.touch(mode=0o600)
    path.write_text(json.dumps(content, indent=1))
