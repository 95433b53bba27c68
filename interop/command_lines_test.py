#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Command lines of all kinds, right and wrong: where qemu-img succeeds ringdisk does, and where it
refuses ringdisk does, too. (More coroutines than qemu-img has, -m 17, ringdisk takes.)"""
import shutil

import peers

SIZES = ["1024", "1024b", "1k", "1K", "1M", "1G", "1T", "1024.0", "1024.0b", "1.5k", "1.5K", "1.5M",
         "1.5G", "1.5T", "-1024", "-1k", "1kilobyte", "foobar", "1024foo", "0x400", "1e3", "  1024",
         "1024 ", ".5G", "1.", "1.5", ".", "0", "9223372036854775808", "8E", "7E", "1P", "1k1",
         "+5", "1,5", "1_000"]
VALUES = {
    "cluster_size": ["1234", "64k", "0", "256", "512", "4M", "2M", "1.5k", "64K", "8M", "65537"],
    "compat": ["0.42", "foobar", "1.1", "0.10", "v2", "v3", "1.0"],
    "preallocation": ["off", "metadata", "falloc", "full", "1234", "on"],
    "lazy_refcounts": ["on", "off", "yes", "1", "true", "foo", ""],
    "refcount_bits": ["1", "16", "64", "5", "128", "0", "-1"],
    "encryption": ["on", "off"],
    "compression_type": ["zlib", "zstd", "lz4"],
    "extended_l2": ["on", "off", "maybe"],
}
# The rest, a command a line; words with blanks are not needed. base.raw is 1 MiB and 64 KiB,
# good.qcow2 10 MiB with a snapshot s, plain.qcow2 10 MiB and empty.
LINES = """
create -f qcow2 -o compat=0.10,lazy_refcounts=on t.qcow2 1M
create -f qcow2 -o encryption=on t.qcow2 1M
create -f qcow2 -o nocow=on t.qcow2 1M
create -f qcow2 -o nocow=off,extent_size_hint=1M t.qcow2 1M
create -f raw -o nocow=on,preallocation=falloc t.raw 1M
create -f raw -o extent_size_hint=64k t.raw 1M
create -f raw -o extent_size_hint=0 t.raw 1M
create -f qcow2 -o nocow=maybe t.qcow2 1M
create -f qcow2 -o extent_size_hint=much t.qcow2 1M
create -f qcow2 -o encryption=off t.qcow2 1M
create -f qcow2 -o cluster_size=4k -o lazy_refcounts=on t.qcow2 1M
create -f qcow2 -o cluster_size=4k -o lazy_refcounts=on -o cluster_size=8k t.qcow2 1M
create -f qcow2 -o cluster_size=4k,cluster_size=8k t.qcow2 1M
create -f qcow2 -o help t.qcow2 1M
create -f qcow2 -o ? t.qcow2 1M
create -f qcow2 -o cluster_size=4k,help t.qcow2 1M
create -f qcow2 -o help,cluster_size=4k t.qcow2 1M
create -f qcow2 -o help
create -o help
create -f qcow2 -u -o backing_file=t.qcow2,,help t2.qcow2 1M
create -f qcow2 -u -o backing_file=t.qcow2,,help,backing_fmt=qcow2 t2.qcow2 1M
create -f qcow2 -o backing_file=t.qcow2, -o backing_fmt=qcow2 t2.qcow2 1M
create -f qcow2 -o , t2.qcow2 1M
create -f qcow2 -o backing_file=t.qcow2, -o help t2.qcow2 1M
create -f qcow2 -o backing_file=t.qcow2 -o ,, -o help t2.qcow2 1M
create -f qcow2 -o backing_file=t.qcow2 -o ,help t2.qcow2 1M
create -f qcow2 -o size=1M t2.qcow2 2M
create -f bogus t2 1M
create
create -f qcow2
create -f qcow2 t2.qcow2
create -f qcow2 t2.qcow2 1M 2M
create -f qcow2 -b base.raw t2.qcow2
create -f qcow2 -b base.raw -F raw t2.qcow2
create -f qcow2 -b none.raw -F raw t2.qcow2
create -f qcow2 -b none.raw -F raw t2.qcow2 1M
create -f qcow2 -u -b none.raw -F raw t2.qcow2 1M
create -f qcow2 -b base.raw -F bogus t2.qcow2
create -f raw -b base.raw -F raw t2.raw
create -f qcow2 -b t2.qcow2 -F qcow2 t2.qcow2 1M
convert -f raw -O qcow2 -o help base.raw x
convert -O qcow2 -o cluster_size=4k -o lazy_refcounts=on base.raw x
convert -O qcow2 -o cluster_size=4k, -o help base.raw x
convert -O qcow2 -o nocow=on base.raw x
convert -O bogus base.raw x
convert base.raw
convert
convert -O qcow2 none.raw x
convert -S foo base.raw x
convert -S 513 base.raw x
convert -S 64k base.raw x
convert -c base.raw x
convert -c -O qcow2 base.raw x
convert -c -S 0 -O qcow2 base.raw x
convert -m 0 base.raw x
convert -m 16 base.raw x
convert -m foo base.raw x
convert -W base.raw x
convert -n base.raw nonexist
convert -n -O qcow2 -o cluster_size=4k base.raw x
convert -t none base.raw x
convert -t bogus base.raw x
convert -T bogus base.raw x
convert -l nosnap -f qcow2 good.qcow2 x
convert -l snapshot.name=s -f qcow2 good.qcow2 x
convert -l snapshot.id=1 -f qcow2 good.qcow2 x
convert -l s -f qcow2 good.qcow2 x
convert --image-opts driver=raw,file.filename=base.raw x
convert --image-opts file.filename=base.raw x
info file:base.raw
info --image-opts driver=qcow2,file.driver=file,file.filename=good.qcow2
info none.raw
info
info base.raw good.qcow2
info -f qcow2 base.raw
info -f raw good.qcow2
info --output=xml base.raw
info --output json base.raw
info --backing-chain good.qcow2
info --limits base.raw
check base.raw
check good.qcow2
check -f raw base.raw
check --output=json good.qcow2
check -r foo good.qcow2
check none
check -q good.qcow2
map good.qcow2
map --output=json good.qcow2
map base.raw
map -s 0 -l 64k good.qcow2
map --start-offset=1M good.qcow2
map --start-offset=-1 good.qcow2
map --start-offset=100M good.qcow2
map --max-length=64k --output=json good.qcow2
measure
measure --size 1G
measure --size 1G -O qcow2
measure --size foo
measure --size -1
measure --size 1G base.raw
measure --size 1G -f raw
measure --size 1G -l s
measure base.raw good.qcow2
measure none.raw
measure -O bogus base.raw
measure -O qcow2 -o bogus=1 base.raw
measure -O qcow2 -o cluster_size=1000 base.raw
measure -O qcow2 --output=json base.raw
measure -O qcow2 --output=xml base.raw
measure -O qcow2 -l s good.qcow2
measure -O qcow2 -l nosnap good.qcow2
measure -O qcow2 -f qcow2 base.raw
measure --image-opts driver=qcow2,file.filename=good.qcow2
snapshot -l good.qcow2
snapshot good.qcow2
snapshot -l base.raw
snapshot -c x base.raw
snapshot -c good.qcow2
snapshot -c a -d b good.qcow2
snapshot -q -a nope good.qcow2
snapshot -l -c s good.qcow2
resize good.qcow2 +1M
resize good.qcow2 -1M
resize --shrink good.qcow2 -- -1M
resize good.qcow2 -- -512
resize good.qcow2 foo
resize good.qcow2
resize base.raw +512
resize -f raw base.raw +1k
resize --preallocation=full -f raw base.raw +1M
resize --preallocation=metadata good.qcow2 +1M
resize --preallocation=falloc good.qcow2 +1M
resize --preallocation=bogus good.qcow2 +1M
resize good.qcow2 +0
resize -q good.qcow2 +1
resize -f raw base.raw +1
amend -o help good.qcow2
amend -f qcow2 -o help
amend good.qcow2
amend -o compat=0.42 good.qcow2
amend -o cluster_size=32k good.qcow2
amend -o cluster_size=64k good.qcow2
amend -o preallocation=full good.qcow2
amend -o encryption=on good.qcow2
amend -o backing_file=base.raw,backing_fmt=raw good.qcow2
amend -o size=20M good.qcow2
amend -o refcount_bits=5 good.qcow2
amend -o compat=0.10 -o lazy_refcounts=on good.qcow2
amend -o bogus=1 good.qcow2
amend -f qcow2 -o lazy_refcounts=on, -o help good.qcow2
amend -o size=1M base.raw
rebase -b base.raw good.qcow2
rebase -u -b x -F raw plain.qcow2
rebase -b base.raw -F raw plain.qcow2
rebase base.raw
rebase -b base.raw -F raw base2.raw
rebase -f qcow2 plain.qcow2
commit plain.qcow2
commit base.raw
commit -b none plain.qcow2
commit none
bitmap --add plain.qcow2 b
bitmap --add plain.qcow2 b
bitmap --add -g 1 plain.qcow2 c
bitmap --add -g 256 plain.qcow2 c
bitmap --add -g 513 plain.qcow2 c
bitmap --add -g 4G plain.qcow2 c
bitmap --add -g 2G plain.qcow2 c
bitmap plain.qcow2 b
bitmap --remove plain.qcow2
bitmap --add base.raw b
bitmap --merge b plain.qcow2 c
bitmap --add --disable plain.qcow2 d
bitmap --enable plain.qcow2 d
bitmap --clear --enable --disable plain.qcow2 d
bitmap -g 4k --clear plain.qcow2 d
bogus
--version
--help

"""


def command_lines():
    """All of them, as lists of words."""
    lines = [["create", "-f", "qcow2", "t.qcow2", size] for size in SIZES]
    lines += [["create", "-f", "qcow2", "-o", f"size={size}", "t.qcow2"] for size in SIZES]
    lines += [["create", "-f", "qcow2", "-o", f"{option}={value}", "t.qcow2", "1M"]
              for option, values in VALUES.items() for value in values]
    lines += [line.split() for line in LINES.splitlines() if line]
    lines += [[command, f"json:{description}", *target]
              for command, target in (("info", ()), ("convert", ("x",)))
              for description in ('{"driver":"raw","file":{"driver":"file","filename":"base.raw"}}',
                                  '{"driver":"qcow2","file.filename":"good.qcow2"}',
                                  '{"driver":"qcow2"}', '{"driver"', "[]", "",
                                  '{"driver":"bogus","file":{"filename":"base.raw"}}')]
    for name in ("", "x" * 1023, "x" * 1024):
        lines.append(["bitmap", "--add", "plain.qcow2", name])
    lines += [["rebase", "-b", "", "plain.qcow2"], 
              ["create", "-f", "qcow2", "-o", "", "t.qcow2", "1M"],
              ["create", "-f", "qcow2", "-b", "", "-F", "raw", "t.qcow2", "1M"]]
    return lines


class CommandLinesTest(peers.Case):
    """The same lines in two directories, one after the other: what one leaves the next finds."""

    def make_place(self, name):
        """A directory with the three images."""
        place = self.directory / name
        place.mkdir()
        (place / "base.raw").write_bytes(bytes(range(1, 256)) * 257 + bytes(1 + (1 << 20)))
        (place / "base2.raw").write_bytes(bytes(1 << 20))
        for image in ("good.qcow2", "plain.qcow2"):
            peers.qemu_img("create", "-q", "-f", "qcow2", image, "10M", cwd=place)
        peers.qemu_img("snapshot", "-c", "s", "good.qcow2", cwd=place)
        return place

    def test_both_succeed_or_both_refuse(self):
        ours, theirs = self.make_place("ringdisk"), self.make_place("qemu")
        for words in command_lines():
            with self.subTest(" ".join(words)[:100]):
                mine = peers.ringdisk(*words, cwd=ours, expect=None)
                qemus = peers.qemu_img(*words, cwd=theirs, expect=None)
                self.assertEqual(mine.returncode, qemus.returncode,
                                 f"{mine.stdout}{mine.stderr}\n{qemus.stdout}{qemus.stderr}")
                if mine.returncode == 1:
                    self.assertTrue(mine.stderr.startswith("ringdisk: "), mine.stderr)
        shutil.rmtree(ours)


if __name__ == "__main__":
    peers.main(needs=["qemu-img"])
