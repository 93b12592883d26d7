"""What these tests share."""

from pathlib import Path

import pytest

from tests.support.decontaminations import LEAKS, data, record


@pytest.fixture
def benchmark_dir(tmp_path) -> Path:
    """FLORES-200 in its publishers' layout: dev and devtest share a line in Basque, as they do in some languages."""
    folder = tmp_path / "benchmarks"
    for split, basque, english in (
        ("dev", [LEAKS["Basque"][0], "Egun on."], [LEAKS["English"][0], "Good morning."]),
        ("devtest", [LEAKS["Basque"][1], LEAKS["Basque"][0]], [LEAKS["English"][1], "Nothing of the kind."]),
    ):
        (folder / "flores200_dataset" / split).mkdir(parents=True)
        for code, lines in (("eus_Latn", basque), ("eng_Latn", english)):
            (folder / "flores200_dataset" / split / f"{code}.{split}").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def planted(tmp_path) -> Path:
    clean = "Itsasoa lasai zegoen eta haizea hegotik zetorren."
    sea = "The sea was calm and the wind came from the south."
    return data(
        tmp_path,
        [
            record(0, [clean, clean + " Bai."], [sea, sea]),
            record(1, [clean, LEAKS["Basque"][0].upper(), clean], [sea, sea, sea]),
            record(
                2,
                [clean, clean, clean],
                [sea, LEAKS["English"][1].replace("harbour", "harbour,"), sea],
                confidences=[1, 2, 3],
            ),
            record(3, [LEAKS["Basque"][2]], [sea]),
        ],
    )
