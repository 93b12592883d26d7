"""Decode translations up to the first line break, since base models continue after a translation."""

from collections.abc import Callable, Iterator, Sequence

from topxgen.prompting.mt_templates import MTTemplate

Candidates = tuple[int, list[str]]  # the number of a prompt, its cleaned texts (none: no answer)


def one_line_answers(
    template: MTTemplate, count: int, ask: Callable[[Sequence[int], tuple[str, ...]], Iterator[Candidates]]
) -> Iterator[Candidates]:
    """Yield the candidates of `count` raw prompts made with `template`, as they finish.

    `ask(numbers, stop)` sends the prompts of those numbers and yields their candidates. An answer that begins with a line
    break would always be empty: its prompt is sent again, to be decoded up to the template's own stop string.
    """
    blank = []
    for number, texts in ask(range(count), template.stops):
        if "\n" in template.stops and texts and not any(texts):
            blank.append(number)
        else:
            yield number, texts
    if blank:
        yield from ask(blank, (template.stop,))
