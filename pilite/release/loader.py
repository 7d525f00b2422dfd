"""The loader as users get it: a folder to unpack, a wheel, a Debian package; for each architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pilite import VERSION
from pilite.lab.loader import SOURCES, LoaderFiles
from pilite.release import files
from pilite.release.files import EXECUTABLE, File

TEMPLATES = Path(__file__).with_name("templates")
HEADERS = ("pilite.h", "pilite.hpp", "pilite_abi.h")
LICENSE = SOURCES.parent / "LICENSE"


@dataclass(frozen=True)
class Names:
    """How others call an architecture."""

    debian: str
    multiarch: str
    wheel: str


ARCHITECTURES = {
    "aarch64": Names("arm64", "aarch64-linux-gnu", "py3-none-manylinux_2_28_aarch64"),
    "x86_64": Names("amd64", "x86_64-linux-gnu", "py3-none-manylinux_2_28_x86_64"),
}


def packages(arch: str, built: LoaderFiles) -> list[File]:
    """The three packages of one architecture."""
    library, runner = built.library.read_bytes(), built.runner.read_bytes()
    names = ARCHITECTURES[arch]
    root = f"pilite-loader-{VERSION}-{arch}"
    return [
        File(f"{root}.tar.gz", files.tar_gz(files.below(root, folder(library, runner, "lib")))),
        File(f"pilite-{VERSION}-{names.wheel}.whl", wheel(library, runner, names.wheel)),
        File(f"pilite_{VERSION}_{names.debian}.deb", deb(library, runner, names)),
    ]


def folder(library: bytes, runner: bytes, lib: str) -> list[File]:
    """bin, include, lib, with pkg-config and CMake files that find their prefix from their own place."""
    values = {"LIB": lib, "UP": "/".join([".."] * (lib.count("/") + 2))}
    cmake = [template(f"pilite-config{name}.cmake", **values) for name in ("", "-version")]
    return [
        File("bin/pilite-run", runner, EXECUTABLE),
        *(File(f"include/{name}", (SOURCES / name).read_bytes()) for name in HEADERS),
        File(f"{lib}/libpilite.so", library),
        *files.below(f"{lib}/cmake/pilite", cmake),
        *files.below(f"{lib}/pkgconfig", [template("pilite.pc", **values)]),
        File("share/doc/pilite/README.md", (SOURCES / "README.md").read_bytes()),
        File("share/doc/pilite/copyright", LICENSE.read_bytes()),
        File("share/pilite/pilite.py", (SOURCES / "pilite.py").read_bytes()),
    ]


def wheel(library: bytes, runner: bytes, tag: str) -> bytes:
    """`import pilite` with its library beside it, and the command pilite-run."""
    info = f"pilite-{VERSION}.dist-info"
    metadata = template("METADATA")
    readme = (SOURCES / "README.md").read_bytes()
    return files.wheel(
        [
            File("pilite/__init__.py", (SOURCES / "pilite.py").read_bytes()),
            File("pilite/libpilite.so", library, EXECUTABLE),
            File(f"pilite-{VERSION}.data/scripts/pilite-run", runner, EXECUTABLE),
            File(f"{info}/METADATA", metadata.data + readme),
            File(f"{info}/WHEEL", template("WHEEL", TAG=tag).data),
            File(f"{info}/LICENSE", LICENSE.read_bytes()),
        ],
        info,
    )


def deb(library: bytes, runner: bytes, names: Names) -> bytes:
    """Everything below /usr; Python finds the library through a link beside its module."""
    lib = f"lib/{names.multiarch}"
    python = "usr/lib/python3/dist-packages/pilite"
    content = [
        *(one for one in files.below("usr", folder(library, runner, lib)) if "share/pilite/" not in one.name),
        File(f"{python}/__init__.py", (SOURCES / "pilite.py").read_bytes()),
        File(f"{python}/libpilite.so", link=f"../../../{names.multiarch}/libpilite.so"),
    ]
    kib = sum(len(one.data) for one in content) // 1024 + 1
    return files.deb(template("control", ARCH=names.debian, KIB=str(kib)).data.decode(), content)


def template(name: str, **values: str) -> File:
    """A file of templates/ with its @NAMES@ filled in."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    for key, value in {"VERSION": VERSION, "MAJOR": VERSION.split(".")[0], **values}.items():
        text = text.replace(f"@{key}@", value)
    return File(name, text.encode())
