"""Trees outside this library: as text to read, and as a C header to build into a controller."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ascent.policies.trees.ensemble import Ensemble

READER = """
/* out[{D}] from x[{F}]; categories are their codes. */
static inline void {name}(const float *x, double *out) {{
    for (int d = 0; d < {D}; d++) out[d] = {name}_bias[d];
    for (int t = 0; t < {T}; t++) {{
        int leaf = 0;
        for (int level = 0; level < {depth}; level++) {{
            const int at = {at};
            const int f = {name}_feature[t][at];
            const float v = {name}_threshold[t][at];
            leaf = 2 * leaf + (f >= 0 && ({name}_equal[t][at] ? x[f] == v : x[f] > v));
        }}
        for (int d = 0; d < {D}; d++) out[d] += (double){name}_move[t][leaf][d];
    }}
}}
"""


def header(ensemble: Ensemble, name: str = "policy") -> str:
    """A C header with the trees as tables and `void name(const float *x, double *out)`; it needs nothing else."""
    if not name.isidentifier():
        raise ValueError(f"name must be a C identifier; got {name!r}.")
    if not ensemble.trees:
        raise ValueError("an ensemble without trees has nothing to export; train it first.")
    if ensemble.adam is not None:
        raise ValueError("a C header adds up trees, and Adam's moments are no sum of them; train by gradient descent.")
    depth = ensemble.shape.depth
    at = "level" if ensemble.oblivious else "(1 << level) - 1 + leaf"
    kinds = {"feature": "int", "threshold": "float", "equal": "unsigned char", "move": "float"}
    lines = [f"#ifndef {name.upper()}_H", f"#define {name.upper()}_H", ""]
    lines.append(f"static const double {name}_bias[{ensemble.outputs}] = {_table(ensemble.bias)};")
    for column, kind in kinds.items():
        array = ensemble.array(column)
        lines.append(f"static const {kind} {name}_{column}{_sizes(array.shape)} = {_table(array)};")
    reader = READER.format(name=name, F=ensemble.features, D=ensemble.outputs, T=ensemble.trees, depth=depth, at=at)
    return "\n".join(lines) + "\n" + reader + "\n#endif\n"


def _sizes(shape: Iterable[int]) -> str:
    return "".join(f"[{size}]" for size in shape)


def _table(array: NDArray[np.generic]) -> str:
    if array.ndim:
        return "{" + ",".join(_table(part) for part in array) + "}"
    number = array.item()
    if isinstance(number, int):
        return str(number)
    # Hexadecimal floats are exact.
    return float(number).hex() + ("f" if array.dtype == np.float32 else "")


def text(ensemble: Ensemble, tree: int) -> str:
    """One tree as indented questions, with each leaf's samples and gradient."""
    if not 0 <= tree < ensemble.trees:
        raise ValueError(f"tree must be in 0 .. {ensemble.trees - 1}; got {tree}.")
    rates = ", ".join(f"{rate:g}" for rate in ensemble.array("rate")[tree])
    return "\n".join([f"tree {tree}, rates {rates}", *_node(ensemble, tree, 0, 0, "  ")])


def _node(ensemble: Ensemble, tree: int, level: int, node: int, indent: str) -> list[str]:
    depth = ensemble.shape.depth
    if level == depth:
        gradient = ", ".join(f"{number:+.4g}" for number in ensemble.array("value")[tree, node])
        return [f"{indent}[{gradient}] of {ensemble.array('count')[tree, node]}"]
    at = level if ensemble.oblivious else (1 << level) - 1 + node
    f = int(ensemble.array("feature")[tree, at])
    if f < 0:
        return _node(ensemble, tree, level + 1, 2 * node, indent)
    asked = ensemble.names[f] + " " + _answer(ensemble, tree, at, f)
    lines = [f"{indent}{asked}?"]
    for word, child in (("yes", 2 * node + 1), ("no", 2 * node)):
        inner = _node(ensemble, tree, level + 1, child, indent + "    ")
        lines += [f"{indent}  {word}:", *inner]
    return lines


def _answer(ensemble: Ensemble, tree: int, at: int, f: int) -> str:
    threshold = float(ensemble.array("threshold")[tree, at])
    if not ensemble.array("equal")[tree, at]:
        return f"> {threshold:.6g}"
    words = ensemble.words.get(f)
    return f'= "{words[int(threshold)]}"' if words is not None else f"= {int(threshold)}"
