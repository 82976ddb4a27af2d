"""In the tests, and only there, the shapes that the core's functions state are checked at every call."""

from jaxtyping import install_import_hook

install_import_hook(
    ["ascent.core.returns", "ascent.core.surrogates", "ascent.core.divergences", "ascent.core.reductions"],
    "beartype.beartype",
)
