"""Sentence translation behind one interface.

A translator has
    translate(sentences, source, target) -> list of Translation, in the order of the sentences
    version                              what a manifest should say of it
    check(source, target)                raise UserError when it cannot translate between the two
    close()                              free the model and its memory
It is given as many sentences at once as the caller has (`block_size` at most, which bounds what a kill can
undo) and sorts and batches them itself.
"""

import importlib
from dataclasses import dataclass

from comptra.errors import UserError

# One row a translator: "module:class", imported when it is chosen.
TRANSLATORS = {"apertium": "comptra.translators.apertium:Apertium"}
# Those that load nothing heavy, so that a script can try them before it starts.
LIGHT = ("apertium",)
# Names that scripts accept already, for translators that are not built yet.
PLANNED = ("nllb", "llm")


@dataclass(frozen=True)
class Translation:
    """`confidence` is the translator's own estimate of quality from 0 to 1, None if it has none."""

    text: str
    confidence: float | None = None


def require_built(name: str) -> None:
    """Raise UserError for a translator that is announced but not built."""
    if name in PLANNED:
        raise UserError(
            f"the {name} back-translator is not built yet: pass --back_translator {' or '.join(TRANSLATORS)}, or run "
            "--stages generate alone now and translate later"
        )


def load(name: str):
    """The translator of that name. Raises UserError when it cannot be had."""
    require_built(name)
    module, _, attribute = TRANSLATORS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)()
