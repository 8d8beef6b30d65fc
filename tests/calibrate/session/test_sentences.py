"""The sentences to read aloud."""

from __future__ import annotations

import pytest

from calibrate.session.sentences import FALLBACK, MOST_TAKES, language_of_locale, languages, sentences
from edge.errors import UsageError


def test_the_languages_of_the_recordings_and_their_neighbours_are_there() -> None:
    assert set(languages()) >= {"en", "de", "fr", "es", "pl", "da", "ko"}


@pytest.mark.parametrize("language", languages())
def test_each_language_has_a_different_plain_sentence_for_every_take(language: str) -> None:
    said = sentences(language)
    assert len(said) == len(set(said)) == MOST_TAKES
    for sentence in said:
        assert sentence == sentence.strip()
        assert sentence.endswith(".")  # a question or an exclamation has a manner of its own
        assert 15 <= len(sentence) <= 60


def test_an_unknown_language_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'xx': choose --language from da, de, en"):
        sentences("xx")


@pytest.mark.parametrize(
    ("environment", "language"),
    [
        ({"LANG": "de_DE.UTF-8"}, "de"),
        ({"LANG": "de_DE.UTF-8", "LC_ALL": "pl_PL"}, "pl"),
        ({"LC_MESSAGES": "ko_KR.UTF-8", "LANG": "fr_FR"}, "ko"),
        ({"LANG": "C.UTF-8"}, FALLBACK),
        ({"LANG": "fi_FI.UTF-8"}, FALLBACK),
        ({"LANG": ""}, FALLBACK),
        ({}, FALLBACK),
    ],
)
def test_the_locale_chooses_the_language(environment: dict[str, str], language: str) -> None:
    assert language_of_locale(environment) == language
