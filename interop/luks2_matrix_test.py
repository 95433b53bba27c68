#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LUKS2 volumes of every kind that cryptsetup can make (luks_matrix.py), both ways.

They make, we read their bytes and add a key, they open with both. We make, they open, their key and
OpenSSL's cipher give our bytes (luks_reference.py), they add a key, we open with it. What dm-crypt
itself makes of the payload is in e2e/luks_test.py.
"""
import luks_matrix
import peers
from luks_volumes import MatrixCase


class Matrix(MatrixCase):
    """All kinds."""

    def test_cryptsetups(self):
        luks_matrix.for_each(luks_matrix.kinds_of(2), self.check_theirs)

    def test_ours(self):
        luks_matrix.for_each(luks_matrix.kinds_of(2), self.check_ours)


if __name__ == "__main__":
    peers.main(needs=["cryptsetup"])
