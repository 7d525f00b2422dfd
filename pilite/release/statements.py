"""What a release says about itself: the bill of materials (CycloneDX) and the provenance (in-toto, SLSA)."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jsonschema

from pilite import VERSION
from pilite.compiler import artifact
from pilite.errors import CheckFailed
from pilite.release.files import EPOCH

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = Path(__file__).with_name("provenance.schema.json")
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE, BUILDER = "urn:pilite:release:1", "urn:pilite:release"
LOADER_SOURCES = ("*.cc", "*.h", "*.hpp", "*.py", "README.md")
RELEASE_SOURCES = ("*.py", "*.json", "templates/*")


@dataclass(frozen=True)
class Model:
    """A source model: how `--model` names it, and the sha256 of the file."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Parameters:
    """What was asked for: enough to make the same release again."""

    models: tuple[Model, ...]
    cpus: tuple[str, ...]
    numerics: tuple[str, ...]
    fully_connected: str

    def command(self) -> list[str]:
        options = [("model", model.name) for model in self.models] + [("cpu", cpu) for cpu in self.cpus]
        options += [("numerics", ",".join(self.numerics)), ("fully-connected", self.fully_connected)]
        words = [word for name, value in options for word in (f"--{name}", value)]
        return ["python3", "run.py", "release", *words]


def sources() -> dict[str, str]:
    """sha256 of every group of files of this checkout that decides bytes of a release."""
    loader = ROOT / "loader"
    return {
        "compiler": artifact.compiler_hash(),
        "loader": _hash(path for pattern in LOADER_SOURCES for path in loader.glob(pattern)),
        "release": _hash(p for pattern in RELEASE_SOURCES for p in Path(__file__).parent.glob(pattern)),
        "requirements.lock": _hash([ROOT / "requirements.lock"]),
    }


def _hash(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def provenance(parameters: Parameters, subjects: Mapping[str, str]) -> bytes:
    """An in-toto statement with SLSA's predicate: no time, no host: a second build makes the same."""
    inputs = [_material(f"model:{model.name}", model.sha256) for model in parameters.models]
    inputs += [_material(f"source:{name}", digest) for name, digest in sources().items()]
    tools = artifact.versions()
    document = {
        "_type": STATEMENT,
        "subject": [{"name": n, "digest": {"sha256": digest}} for n, digest in sorted(subjects.items())],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": asdict(parameters),
                "internalParameters": {"command": parameters.command()},
                "resolvedDependencies": [*inputs, *({"uri": purl(n, v)} for n, v in sorted(tools.items()))],
            },
            "runDetails": {"builder": {"id": BUILDER, "version": {"pilite": VERSION}}},
        },
    }
    text = json.dumps(document, indent=1, sort_keys=True) + "\n"
    checked(json.loads(text))
    return text.encode()


def checked(document: Any) -> Any:
    """The statement; raises jsonschema.ValidationError if it is not what provenance.schema.json says."""
    jsonschema.validate(document, json.loads(SCHEMA.read_text(encoding="utf-8")))
    return document


def _material(uri: str, digest: str) -> dict[str, Any]:
    return {"uri": uri, "digest": {"sha256": digest}}


def purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def parameters_of(data: bytes, what: str) -> Parameters:
    """What a provenance says was asked for. Raises CheckFailed if it is no provenance of a release."""
    given = _definition(data, what)["externalParameters"]
    models = tuple(Model(row["name"], row["sha256"]) for row in given["models"])
    return Parameters(models, tuple(given["cpus"]), tuple(given["numerics"]), given["fully_connected"])


def _definition(data: bytes, what: str) -> Any:
    try:
        document = checked(json.loads(data))
    except (ValueError, jsonschema.ValidationError) as problem:
        why = problem.message[:120] if isinstance(problem, jsonschema.ValidationError) else problem
        raise CheckFailed(f"{what}: is no provenance of a pilite release ({why}).") from None
    return document["predicate"]["buildDefinition"]


def bill(models: Sequence[Model], artifacts: Mapping[str, str]) -> bytes:
    """A CycloneDX 1.5 bill of materials, checked against its schema.

    `artifacts`: path in its tarball -> sha256 of every compiled model.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot5
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from packageurl import PackageURL

    def part(kind: ComponentType, name: str, version: str, digest: str = "", package: str = "") -> Component:
        return Component(
            type=kind,
            name=name,
            version=version,
            bom_ref=f"{name}@{version}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)] if digest else None,
            purl=PackageURL("pypi", name=package, version=version) if package else None,
        )

    product = part(ComponentType.APPLICATION, "pilite", VERSION)
    library, model = ComponentType.LIBRARY, ComponentType.MACHINE_LEARNING_MODEL
    parts = [part(library, "libpilite", VERSION, sources()["loader"])]
    parts += [part(library, name, digest[:12], digest) for name, digest in sorted(artifacts.items())]
    parts += [part(model, one.name, one.sha256[:12], one.sha256) for one in models]
    parts += [part(library, name, importlib.metadata.version(name), package=name) for name in artifact.TOOLS]
    bom = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([VERSION, sorted(artifacts.items())])),
        metadata=BomMetaData(component=product, timestamp=datetime.fromtimestamp(EPOCH, timezone.utc)),
        components=parts,
    )
    bom.register_dependency(product, parts)
    text = JsonV1Dot5(bom).output_as_string(indent=1)
    wrong = JsonStrictValidator(SchemaVersion.V1_5).validate_str(text)
    if wrong is not None:
        raise AssertionError(f"the bill of materials is not CycloneDX 1.5: {str(wrong)[:300]}")
    return (text.rstrip("\n") + "\n").encode()
