# SPDX-License-Identifier: Apache-2.0
"""Test data that tells where it belongs: every 512-byte block has its own content.

A block holds its index and the seed, then bytes that follow from both, so a block in the wrong
place, from another file, or torn, is noticed and named. A constant fill could not notice that a
request was given the wrong part of a buffer. Content of block 3, seed 7:

    | seed = 7 (8) | index = 3 (8) | SHAKE-128 of those 16 bytes (496) |      little-endian

A Pattern is a sparse disk: sorted extents of such blocks, zeros between them.
"""
import bisect
import dataclasses
import hashlib
import math
import os
import random
import struct

BLOCK_BYTES = 512
STAMP = struct.Struct("<QQ")


def block_content(seed, index, compressible=False):
    """The 512 bytes of block `index`; `compressible` repeats the stamp instead."""
    stamp = STAMP.pack(seed, index)
    if compressible:
        return stamp * (BLOCK_BYTES // len(stamp))
    return stamp + hashlib.shake_128(stamp).digest(BLOCK_BYTES - len(stamp))


def describe_block(content):
    """Says what a block holds, for an error message."""
    if not any(content):
        return "zeros"
    seed, index = STAMP.unpack_from(content)
    if content in (block_content(seed, index), block_content(seed, index, True)):
        return f"block {index} of seed {seed}"
    return f"no block's content (it begins {content[:16].hex()})"


@dataclasses.dataclass(frozen=True)
class Pattern:
    """A disk of `size_bytes` (a multiple of 512) with data in `extents`, (begin, end) in blocks,
    sorted and apart."""

    size_bytes: int
    seed: int
    extents: tuple
    compressible: bool = False

    def block(self, index):
        """What block `index` must hold."""
        return self.contents(index, index + 1)

    def contents(self, begin, end):
        """What the bytes from block `begin` to block `end` must be."""
        pieces = []
        at = begin
        candidate = max(0, bisect.bisect(self.extents, (begin, math.inf)) - 1)
        while candidate < len(self.extents) and self.extents[candidate][0] < end:
            first, last = self.extents[candidate]
            candidate += 1
            first, last = max(first, at), min(last, end)
            if first < last:
                pieces.append(bytes((first - at) * BLOCK_BYTES))
                pieces += (block_content(self.seed, i, self.compressible)
                           for i in range(first, last))
                at = last
        pieces.append(bytes((end - at) * BLOCK_BYTES))
        return b"".join(pieces)

    def write(self, path):
        """Makes the raw file `path`, sparse where the pattern is."""
        with open(path, "wb") as file:
            file.truncate(self.size_bytes)
            for begin, end in self.extents:
                file.seek(begin * BLOCK_BYTES)
                for index in range(begin, end):
                    file.write(block_content(self.seed, index, self.compressible))

    def require(self, path):
        """Raises AssertionError, naming the first wrong block and what it holds instead, unless
        the raw file `path` is this pattern byte for byte."""
        size = os.path.getsize(path)
        if size != self.size_bytes:
            raise AssertionError(f"{path} has {size} bytes instead of {self.size_bytes}")
        step = 2048
        with open(path, "rb") as file:
            for begin in range(0, size // BLOCK_BYTES, step):
                found = file.read(step * BLOCK_BYTES)
                wanted = self.contents(begin, begin + len(found) // BLOCK_BYTES)
                if found != wanted:
                    raise AssertionError(f"{path}: " + _first_wrong(found, wanted, begin))


def _first_wrong(found, wanted, begin):
    for at in range(0, len(found), BLOCK_BYTES):
        here, there = found[at:at + BLOCK_BYTES], wanted[at:at + BLOCK_BYTES]
        if here != there:
            return (f"block {begin + at // BLOCK_BYTES} holds {describe_block(here)}"
                    f" instead of {describe_block(there)}")
    raise ValueError("no block differs")


def sparse(size_bytes, seed, fill=0.4, extent_blocks_max=1024, compressible=False):
    """A random sparse Pattern: extents of 1 to `extent_blocks_max` blocks, most of them short and
    at odd places, over about `fill` of the disk. The first and the last block hold data, since
    ends are where mistakes are. The same arguments give the same pattern; `seed` is positive."""
    if size_bytes % BLOCK_BYTES or size_bytes < BLOCK_BYTES or seed <= 0 or not 0 < fill < 1:
        raise ValueError(f"no pattern of {size_bytes} bytes with seed {seed}")
    chance = random.Random(seed)
    blocks = size_bytes // BLOCK_BYTES
    extents = [(0, 1)]
    at = 1
    while at < blocks - 1:
        length = _short_more_often(chance, extent_blocks_max)
        gap = max(1, round(length * (1 - fill) / fill * chance.uniform(0.5, 1.5)))
        begin, end = at + gap, at + gap + length
        if end >= blocks - 1:
            break
        extents.append((begin, end))
        at = end
    if blocks > 2:
        extents.append((blocks - 1, blocks))
    return Pattern(size_bytes, seed, tuple(extents), compressible)


def full(size_bytes, seed, compressible=False):
    """A Pattern with data everywhere."""
    return Pattern(size_bytes, seed, ((0, size_bytes // BLOCK_BYTES),), compressible)


def _short_more_often(chance, most):
    """A length from 1 to `most` whose logarithm is uniform."""
    return min(most, int(2 ** chance.uniform(0, math.log2(most + 1))))
