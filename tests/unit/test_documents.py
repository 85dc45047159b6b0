"""The check of sentences finds what a reader would stumble over, and nothing else."""

from __future__ import annotations

from docsite import plain

LONG = " ".join(["Word"] * 41)


def test_a_long_sentence_is_found_with_its_line() -> None:
    assert [fault[:13] for fault in plain.faults(f"# Title\n\nShort. Yes.\n{LONG}.\n")] == [
        "4: 41 words: "
    ]


def test_each_cell_heading_and_item_is_by_itself() -> None:
    half = " ".join(["word"] * 21)
    assert not [*plain.faults(f"# {half}\n{half}\n- {half}\n- {half}\n\n| {half} | {half} |\n")]


def test_code_is_no_prose() -> None:
    assert not [*plain.faults(f"```text\n{LONG}\n```\n<!-- {LONG} -->\n`{LONG}`\n[a]({LONG})\n")]


def test_a_word_that_says_nothing_is_found_with_a_better_one() -> None:
    assert [*plain.faults("We call it in order to see.")] == [
        "1: instead of 'in order to' write: to"
    ]
