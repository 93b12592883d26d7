"""Few-shot MT whose demonstrations and sentence carry an annotation by spaCy: parts of speech, morphology, dependencies
or named entities of the source side. Baselines of CompTra (Zebaze, Sagot and Bawden 2025)."""

from collections.abc import Iterator

from comptra.methods import Task
from comptra.methods.conversation import instructions
from topxgen.text import spacy_pipelines


def dependencies(doc) -> str:
    """As nsubj(sleeps, cat): relation(head, word)."""
    return " ".join(
        f"{word.dep_}({word.head.text if word.head.i != word.i else 'ROOT'}, {word.text})"
        for word in doc
        if not word.is_space and not word.is_punct
    )


# Method -> what its pipeline must find (topxgen.text.spacy_pipelines.PARTS), and how it is written.
ANNOTATIONS = {
    "pos": (
        "parts of speech",
        lambda doc: " ".join(f"{word.text}/{word.pos_ or word.tag_}" for word in doc if not word.is_space),
    ),
    "morph": ("morphology", lambda doc: " ".join(f"{word.text}/{word.morph}" for word in doc if str(word.morph))),
    "dep": ("dependencies", dependencies),
    "ner": ("named entities", lambda doc: ", ".join(f"{entity.text} ({entity.label_})" for entity in doc.ents)),
}
PLACEHOLDERS = dict.fromkeys(ANNOTATIONS, ("sentence", "annotation"))


def annotate(kind: str, sentences: list[str], task: Task) -> dict[str, str]:
    """Each sentence with its annotation, as the prompt file renders them; unchanged if there is nothing to annotate."""
    needs, write = ANNOTATIONS[kind]
    text = instructions("annotated", PLACEHOLDERS, task)
    pipeline = spacy_pipelines.load(task.src, task.spacy_model, needs, f"--method_translate {kind}")
    distinct = list(dict.fromkeys(sentences))
    docs = pipeline.pipe([" ".join(sentence.split()) for sentence in distinct])
    annotations = {sentence: write(doc) for sentence, doc in zip(distinct, docs, strict=True)}
    return {
        sentence: text(kind, sentence=sentence, annotation=annotation) if annotation else sentence
        for sentence, annotation in annotations.items()
    }


def _method(kind: str):
    def translate(sentences: list[str], task: Task) -> Iterator[tuple[int, str]]:
        shots = task.shots(sentences)
        annotated = annotate(kind, [*sentences, *(source for pairs in shots for source, _ in pairs)], task)
        prompts = [
            task.prompt([(annotated[source], target) for source, target in pairs], annotated[sentence])
            for pairs, sentence in zip(shots, sentences, strict=True)
        ]
        return task.translate(sentences, prompts)

    translate.check = lambda task: annotate(kind, [], task)
    return translate


pos, morph, dep, ner = map(_method, ANNOTATIONS)
