"""How often scripts/probe_contamination.py suspects a translator that cannot have seen the test set: Apertium, on slices of NTREX-128.

    python scripts/perf/contamination_false_alarms.py --ntrex /data/benchmarks/NTREX-128

Apertium's rules (Basque to English) translate all sentences that can be changed, and their twins. Then the probe judges random
sets of these sentences.
"""

from pathlib import Path

import numpy as np
from measuring import command_line

from comptra.contamination import drop, twins
from comptra.contamination.drop import Columns
from topxgen import translation
from topxgen.corpora import benchmarks
from topxgen.text import languages
from topxgen.translation import TranslatorSettings, no_progress

TWINS, SIZES, SETS = 3, (50, 100, 300), 400  # of sentences; sets of each size
MARGINS = (0, 0.5, 1)  # chrF++


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--ntrex", type=Path, required=True, metavar="DIR", help="folder NTREX-128 of its repository")
    args = parser.parse_args()
    src, tgt = languages.find("Basque"), languages.find("English")
    sides = [[t for s in benchmarks.load("ntrex", side, args.ntrex.parent) for t in s.texts] for side in (src, tgt)]
    made = twins.make(list(zip(*sides, strict=True)), (src.iso639_3, tgt.iso639_3), TWINS, seed=122)
    variants = [made.originals, *made.twins]
    apertium = translation.create("apertium", TranslatorSettings())
    apertium.load()
    texts = [
        [t.text for t in apertium.translate([s.source for s in variant], src, tgt, no_progress)] for variant in variants
    ]
    columns = drop.chrf_columns(variants, texts, src, tgt)
    whole, recall = drop.drop_test(columns, None, 0, 1), drop.recall_test(variants, texts, None)
    print(f"{len(made.numbers)} of {len(sides[0])} sentences change: {made.counts}")
    print(f"chrF++ {whole['original']:.2f}, twins {' '.join(f'{score:.2f}' for score in whole['twins'])}")
    print(f"drop {whole['drop']:.2f}, interval {whole['interval'][0]:.2f} to {whole['interval'][1]:.2f}")
    print(f"recalled {recall['recalled']} of {recall['of']}, by chance {recall['by_chance']}")
    rng, level = np.random.default_rng(1), drop.LEVEL / drop.SIGNALS
    for size in SIZES:
        drops, alarms = [], dict.fromkeys(MARGINS, 0)
        for seed in range(SETS):
            chosen = rng.choice(len(made.numbers), size, replace=False)
            some = Columns([stats[chosen] for stats in columns.variants], columns.scores)
            some_of = [[[values[i] for i in chosen] for values in side] for side in (variants, texts)]
            recall = drop.recall_test(*some_of, None)
            for margin in MARGINS:
                chrf = drop.drop_test(some, None, margin, seed)
                alarms[margin] += drop.is_suspicious(chrf, recall)
            drops.append(chrf["drop"])
        rates = ", ".join(f"margin {margin:g}: {100 * n / SETS:.1f} %" for margin, n in alarms.items())
        print(
            f"{size} sentences: drop {np.mean(drops):.2f} (sd {np.std(drops):.2f}); false alarms {rates} (level {level})"
        )


if __name__ == "__main__":
    main()
