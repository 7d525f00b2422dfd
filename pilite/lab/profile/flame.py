"""A profile as a flame-style picture and as folded stacks, which speedscope and flamegraph.pl read."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

Json = dict[str, Any]

WIDTH, ROW = 1200, 26
COLORS = {"CONV_2D": "#1b6e53", "DEPTHWISE_CONV_2D": "#8a4a08", "FULLY_CONNECTED": "#5b5ea6"}
OTHER = "#5d6770"
LETTER = 7.2  # pixels of a letter: text is left out where it does not fit


def folded(profile: Json) -> str:
    """One line a kernel: model;operator;kernel and its cost in units of a millionth of the profile's."""
    lines = []
    for layer in profile["layers"]:
        for kernel in layer["kernels"]:
            cost = layer["cost"] / len(layer["kernels"])
            frame = f"{profile['model']};{layer['index']} {layer['op']};{kernel.replace(';', ',')}"
            lines.append(f"{frame} {round(1e6 * cost)}\n")
    return "".join(lines)


def svg(profile: Json) -> str:
    """The model below, its operators above it in their order, their kernels on top."""
    unit, whole = profile["unit"], profile["whole"]
    body = "".join(_boxes(profile))
    title = f"{profile['model']} on {profile['board']}, {profile['threads']} thread(s): {whole:.3f} {unit}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {3 * ROW + 30}" role="img" '
        f'font-family="sans-serif" font-size="12"><title>{escape(title)}</title>'
        f'<text x="4" y="18" fill="#888">{escape(title)}</text>{body}</svg>\n'
    )


def _boxes(profile: Json) -> Iterator[str]:
    x = 0.0
    yield _box(0, WIDTH, 2, profile["model"], f"{profile['whole']:.3f} {profile['unit']}", OTHER)
    for layer in profile["layers"]:
        width = layer["share"] * WIDTH
        color = COLORS.get(layer["op"], OTHER)
        cost = f"{layer['cost']:.4f} {profile['unit']}, {100 * layer['share']:.1f} %"
        yield _box(x, width, 1, f"{layer['index']} {layer['op']}", cost, color)
        yield _box(x, width, 0, ", ".join(layer["kernels"]), cost, color)
        x += width


def _box(x: float, width: float, row: int, name: str, cost: str, color: str) -> str:
    y = 28 + row * ROW
    text = name if len(name) * LETTER < width else ""
    label = f'<text x="{x + 4:.1f}" y="{y + 17}" fill="#fff">{escape(text)}</text>' if text else ""
    return (
        f"<g><title>{escape(f'{name}: {cost}')}</title>"
        f'<rect x="{x:.2f}" y="{y}" width="{max(width - 0.5, 0.1):.2f}" height="{ROW - 1}" fill="{color}"/>'
        f"{label}</g>"
    )
