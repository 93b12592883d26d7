"""A translator whose translations the workers of a pool make."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial

from topxgen import distributed
from topxgen.common.errors import UsageError
from topxgen.distributed import Call, Plan
from topxgen.text.languages import Language
from topxgen.translation import TranslatorSettings, create, no_progress


class DistributedTranslator:
    """`local`, whose model is never loaded, with the work done in workers that have another one each."""

    def __init__(self, name: str, local, settings: TranslatorSettings):
        self._name, self._local, self._settings, self._pool = name, local, settings, None

    def __getattr__(self, name: str):
        return getattr(self._local, name)

    def load(self) -> None:
        if self._pool is not None:
            return
        settings, decided = self._settings, self._local.settings
        of_worker = replace(
            settings,
            nllb_compute_type=decided.get("nllb_compute_type", settings.nllb_compute_type),  # as this node chose
            distributed=None,
            num_workers=None,
            model=None,
            engine_log=None,
            response_cache=None,
            earlier_responses=None,
            meter=None,
        )
        plan = Plan(settings.distributed, "translation", settings.num_workers, log=settings.engine_log)
        self._pool = distributed.start(partial(_loaded, self._name, of_worker, decided), plan)

    def translate_lists(
        self,
        method: str,
        lists: Iterable[list[str]],
        source: Language,
        target: Language,
        on_done: Callable[[int], None] = no_progress,
    ) -> Iterator[list]:
        """See topxgen.translation.translate_lists."""
        sizes: list[int] = []

        def calls() -> Iterator[Call]:
            for sentences in lists:
                sizes.append(len(sentences))
                yield Call(method, (sentences, source, target))

        for number, result in enumerate(self._pool.map(calls())):
            on_done(sizes[number])
            yield result

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def _loaded(name: str, settings: TranslatorSettings, decided: dict):
    """A worker's translator. Raises UsageError if it would translate in another way than the driver's settings say."""
    translator = create(name, settings)
    if translator.settings != decided:
        raise UsageError(
            f"a worker would translate with the settings {translator.settings}, not with those of the run, {decided}: all nodes must see the "
            "same models"
        )
    translator.load()
    return translator
