# SPDX-License-Identifier: Apache-2.0
#
# What a rule gives: one place where the code is not as it should be, and what to write instead.
from typing import NamedTuple


class Finding(NamedTuple):
    path: str
    line: int
    message: str
    is_warning: bool = False


def split_entries(text):
    """The entries of a list file: (line number, words) of each line that is not a comment."""
    for number, line in enumerate(text.split("\n"), 1):
        words = line.split("#", 1)[0].split()
        if words:
            yield number, words
