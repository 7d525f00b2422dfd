"""Sets of models that are measured together, beside numbers that others published: shown, never compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Member:
    """A model of a suite: names to try in turn, a published file first, the zoo's like after it."""

    title: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Published:
    """Milliseconds of one inference that somebody else published, on another machine; threads as stated."""

    title: str
    board: str
    threads: str
    engine: str
    ms: float
    source: str


@dataclass(frozen=True)
class Suite:
    name: str
    about: str
    members: tuple[Member, ...]
    published: tuple[Published, ...]


_THREAD = "discuss.tvm.ai/t/6577 (2020)"
_KRAI = "MLPerf Inference v1.1 open/Krai, rpi4coral-fan.on"
_PR = "apache/tvm PR #10310 (2022)"
_XNNPACK = "google/XNNPACK README (2022-02-08), random weights"
_NCNN = "Tencent/ncnn benchmark/README.md, random weights"
_PI4, _PI4_FAST, _PI3, _PI5 = "Pi 4B 1.5 GHz", "Pi 4B 1.8 GHz", "Pi 3B+", "Pi 5"

FORUM = Suite(
    "forum",
    "The models of the discussion in which TVM was slower than TFLite on a Pi 4.",
    (
        Member("MobileNet V1", ("mobilenet_v1_1.0_224_quant", "mobilenet_v1_1.0_224_uint8")),
        Member("MobileNet V2", ("mobilenet_v2_1.0_224_quant", "mobilenet_v2_1.0_224_uint8")),
        Member("Inception V1", ("inception_v1_224_quant", "inception_v1_224_uint8")),
        Member("Inception V2", ("inception_v2_224_quant", "inception_v2_224_uint8")),
        Member("Inception V3", ("inception_v3_299_quant", "inception_v3_299_uint8")),
        Member("Inception V4", ("inception_v4_299_quant", "inception_v4_299_uint8")),
        Member("ResNet-50", ("tfhub_tf2_resnet_50_imagenet_ptq", "resnet_50_224_int8")),
    ),
    (
        Published("MobileNet V1", _PI4, "4", "TFLite", 35.59, _THREAD),
        Published("MobileNet V1", _PI4, "4", "TVM, tuned", 46.96, _THREAD),
        Published("MobileNet V1", _PI4, "not stated", "TFLite 2.5 ruy, p50", 28.52, _KRAI),
        Published("MobileNet V1", _PI4, "several", "XNNPACK", 24.0, _XNNPACK),
        Published("MobileNet V1", _PI4_FAST, "1", "ncnn, min", 84.66, _NCNN),
        Published("MobileNet V1", _PI3, "1", "ncnn, min", 181.34, _NCNN),
        Published("MobileNet V1", _PI3, "several", "XNNPACK", 46.0, _XNNPACK),
        Published("MobileNet V1", _PI5, "1", "ncnn, min", 14.38, _NCNN),
        Published("MobileNet V1", _PI5, "4", "ncnn, min", 8.68, _NCNN),
        Published("MobileNet V2", _PI4, "4", "TFLite", 33.08, _THREAD),
        Published("MobileNet V2", _PI4, "4", "TVM, tuned", 34.42, _THREAD),
        Published("MobileNet V2", _PI4, "not stated", "TFLite 2.5 ruy, p50", 24.03, _KRAI),
        Published("MobileNet V2", _PI4, "several", "XNNPACK", 17.0, _XNNPACK),
        Published("MobileNet V2", _PI3, "several", "XNNPACK", 30.0, _XNNPACK),
        Published("Inception V1", _PI4, "4", "TFLite", 99.97, _THREAD),
        Published("Inception V1", _PI4, "4", "TVM, tuned", 106.52, _THREAD),
        Published("Inception V1", _PI4_FAST, "1", "ncnn, min", 209.63, _NCNN),
        Published("Inception V2", _PI4, "4", "TFLite", 132.0, _THREAD),
        Published("Inception V2", _PI4, "4", "TVM, tuned", 146.48, _THREAD),
        Published("Inception V3", _PI4, "4", "TFLite", 333.0, _THREAD),
        Published("Inception V3", _PI4, "4", "TVM, tuned", 412.72, _THREAD),
        Published("Inception V3", "Pi 4B", "not stated", "TVM", 209.1, _PR),
        Published("Inception V4", _PI4, "4", "TFLite", 700.0, _THREAD),
        Published("Inception V4", _PI4, "4", "TVM, tuned", 896.02, _THREAD),
        Published("ResNet-50", "Pi 4B", "not stated", "TVM", 321.3, _PR),
        Published("ResNet-50", _PI4_FAST, "1", "ncnn, min", 423.72, _NCNN),
        Published("ResNet-50", _PI4_FAST, "4", "ncnn, min", 195.60, _NCNN),
    ),
)
SUITES = {suite.name: suite for suite in (FORUM,)}


@dataclass(frozen=True)
class Chosen:
    """What was found for a member: a source of models/, or why there is none."""

    member: Member
    source: Any = None
    reason: str = ""


def choose(suite: Suite, here: Callable[[str], bool], resolve: Callable[[str], Any]) -> list[Chosen]:
    """For each member the first name that is `here`: a file on this machine, or one that the zoo makes."""
    return [_chosen(member, here, resolve) for member in suite.members]


def _chosen(member: Member, here: Callable[[str], bool], resolve: Callable[[str], Any]) -> Chosen:
    for name in member.names:
        if here(name):
            return Chosen(member, resolve(name))
    return Chosen(member, reason=f"no {member.names[0]}.tflite here, and the zoo has no like of it")


def table(
    found: Sequence[Chosen], document: Json, threads: Sequence[int], runtimes: Sequence[str]
) -> list[Json]:
    """Every member with every thread count and runtime: its time, or why there is none."""
    rows = {(row["model"], row["runtime"], row["threads"]): row for row in document["rows"]}
    failures = {(f["model"], f["runtime"], f["threads"]): f["reason"] for f in document["failures"]}
    ratios = {(r["model"], r["rival"], r["threads"]): r for r in document["ratios"]}
    lines = []
    for one in found:
        name = one.source.name if one.source else ""
        for count in threads:
            for runtime in runtimes:
                key = (name, runtime, count)
                why = one.reason or failures.get(key, "")
                lines.append(_line(one, count, runtime, rows.get(key), ratios.get(key), why))
    return lines


def _line(one: Chosen, threads: int, runtime: str, row: Json | None, ratio: Json | None, why: str) -> Json:
    speed = "" if ratio is None else ratio["verdict"]
    if ratio is not None and ratio["speedup"] is not None:
        speed = f"{ratio['speedup']:.2f} times faster ({ratio['ci95'][0]:.2f} to {ratio['ci95'][1]:.2f})"
    return {
        "model": one.member.title,
        "file": one.source.name if one.source else "",
        "threads": threads,
        "runtime": runtime,
        "median ms": row["median_ms"] if row else None,
        "pilite is": speed,
        "remark": " ".join(why.split())[:160],
    }


def missing(found: Sequence[Chosen]) -> str:
    """What to do about members that are not here, in one line; "" if all are."""
    files = [f"{one.member.names[0]}.tflite" for one in found if one.source is None]
    if not files:
        return ""
    return (
        f"Not here, so not measured: {', '.join(files)}. Put them into the folder that PILITE_MODELS names."
    )


def published_rows(suite: Suite) -> list[Json]:
    return [
        {
            "model": one.title,
            "board": one.board,
            "threads": one.threads,
            "engine": one.engine,
            "ms": one.ms,
            "source": one.source,
        }
        for one in suite.published
    ]
