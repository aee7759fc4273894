"""A node's container runtime, spoken to by its own client `ctr`.

An image has several names: the one it was imported under, and one that is the digest of its configuration, which the
Kubernetes side of containerd adds. The disk is free again only when all of them are gone.
"""

import signal
import subprocess
from collections.abc import Mapping, Sequence
from typing import IO

from dev.cluster.commands import run
from dev.cluster.errors import CommandFailed
from dev.images import Image


class Containerd:
    """The runtime that `command` reaches: ctr with its options, from outside a box with nsenter before it."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = list(command)

    def images(self) -> dict[str, str]:
        """Return the digest of each image by each of its names."""
        lines = self._ctr("images", "list").splitlines()[1:]
        return {words[0]: words[2] for line in lines if len(words := line.split()) > 2}

    def has_image(self, ref: str) -> bool:
        """Whether there is an image of this name."""
        return bool(full_names(self.images(), ref))

    def remove_image(self, ref: str) -> None:
        """Remove an image, and return when its disk space is free."""
        if names := names_to_remove(self.images(), ref):
            self._ctr("images", "remove", "--sync", *names)

    def import_image(self, image: Image) -> None:
        """Import an image while it is being made; it never touches the disk as an archive."""
        with self._importing(subprocess.PIPE) as importing:
            assert importing.stdin
            try:
                with importing.stdin as pipe:
                    image.write(pipe)
            except BrokenPipeError:
                pass  # it ended early, and what it printed tells why
            self._check(importing)

    def import_archive(self, archive: IO[bytes]) -> None:
        """Import every image of an archive."""
        with self._importing(archive.fileno()) as importing:
            self._check(importing)

    def remove_leftovers(self) -> None:
        """Remove what earlier clusters on this store left: containers and their file systems, images without a name.

        Their containers ended with their box, unasked. The kubelet would collect them after a minute only, which few
        clusters live to see, and until then they keep removed images on the disk.
        """
        if containers := self._ctr("containers", "list", "--quiet").split():
            self._ctr("containers", "delete", *containers)
        if sandboxes := self._ctr("sandboxes", "list").splitlines()[1:]:
            self._ctr("sandboxes", "remove", "--force", *(line.split()[0] for line in sandboxes if line))
        if leases := self._ctr("leases", "list", "--quiet").split():
            self._ctr("leases", "delete", *leases)
        if nameless := nameless_images(self.images()):
            self._ctr("images", "remove", *nameless)

    def signal_container(self, container_id: str, number: signal.Signals) -> None:
        """Send a signal to a container's first process."""
        self._ctr("tasks", "kill", "--signal", number.name, container_id)

    def _ctr(self, *words: str) -> str:
        return run(*self._command, *words).stdout

    def _importing(self, stdin: int) -> "subprocess.Popen[bytes]":
        # --discard-unpacked-layers: the disk holds an image once, unpacked, and not its archive as well
        options = ("--local", "--snapshotter", "overlayfs", "--discard-unpacked-layers", "-")
        command = [*self._command, "images", "import", *options]
        return subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def _check(self, importing: "subprocess.Popen[bytes]") -> None:
        assert importing.stdout
        printed = importing.stdout.read().decode(errors="replace")
        if code := importing.wait():
            raise CommandFailed([*self._command, "images", "import"], code, printed)


def full_names(images: Mapping[str, str], ref: str) -> list[str]:
    """Return the names among `images` that `ref` stands for: itself, or with the registry that is left out."""
    return [name for name in (ref, f"docker.io/{ref}", f"docker.io/library/{ref}") if name in images]


def nameless_images(images: Mapping[str, str]) -> list[str]:
    """Return the digests' names of images that have no other name."""
    named = {digest for name, digest in images.items() if not name.startswith("sha256:")}
    return [name for name, digest in images.items() if digest not in named]


def names_to_remove(images: Mapping[str, str], ref: str) -> list[str]:
    """Return every name to remove so that the image is gone; its digests' names stay while another name shares them."""
    given = full_names(images, ref)
    digests = {images[name] for name in given}
    shared = {digest for name, digest in images.items() if not name.startswith("sha256:") and name not in given}
    by_digest = [name for name, digest in images.items() if name.startswith("sha256:") and digest in digests - shared]
    return [*given, *by_digest]
