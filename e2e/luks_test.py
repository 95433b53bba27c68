#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""LUKS payloads as dm-crypt sees them: the kernel opens what we made and finds our bytes, we open
what the kernel made and find its bytes, and one file system is worked on by both in turn.

The kernel is also the judge of interop/luks_reference.py, which stands in for it elsewhere.
"""
import pathlib
import string
import sys
import tempfile

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "interop"))

import luks_reference  # noqa: E402  (the path is set above)
import pattern  # noqa: E402
import peers  # noqa: E402
import vm  # noqa: E402
from luks_matrix import Kind  # noqa: E402

SIZE = 256 << 10
THEIRS_SIZE = (2 << 20) + SIZE
TOOLS = ("cryptsetup", "nbd-client", "mkfs.ext4", "e2fsck")
KINDS = (Kind(1, "aes-xts-plain64", 512), Kind(1, "aes-cbc-essiv:sha256", 256),
         Kind(2, "aes-xts-plain64", 512, hash=None, kdf="argon2id"),
         Kind(2, "aes-xts-plain64", 512, sector_size=4096),
         Kind(2, "aes-xts-plain", 256, sector_size=2048),
         Kind(2, "aes-cbc-essiv:sha256", 256, sector_size=4096),
         Kind(2, "camellia-cbc-plain64", 256))
PASSPHRASE = "words for both"

FUNCTIONS = f"""
printf '{PASSPHRASE}' >/run/key
open() {{ cryptsetup open --key-file /run/key "$1" plain; }}
close() {{ cryptsetup close plain; }}
"""


class DmCrypt(vm.Case):
    """/dev/vda and vdb hold two contents; then come a volume of ours for each kind, and a disk for
    one of the kernel's."""

    @classmethod
    def machine(cls):
        directory = tempfile.TemporaryDirectory(prefix="ringdisk-e2e-")
        cls.addClassCleanup(directory.cleanup)
        cls.directory = pathlib.Path(directory.name)
        cls.key = cls.directory / "key"
        cls.key.write_text(PASSPHRASE, encoding="ascii")
        cls.contents = [cls.directory / name for name in ("one.raw", "other.raw")]
        for number, content in enumerate(cls.contents):
            pattern.full(SIZE, seed=41 + number).write(content)
        cls.ours = [cls.make(kind, number) for number, kind in enumerate(KINDS)]
        cls.theirs = [cls.directory / f"theirs-{number}" for number in range(len(KINDS))]
        for path in cls.theirs:
            with open(path, "wb") as file:
                file.truncate(THEIRS_SIZE)
        cls.disks = [*cls.contents, *cls.ours, *cls.theirs]
        return {"disks": cls.disks, "tools": TOOLS, "add": [peers.ringdisk_path()],
                "modules": ["nbd nbds_max=1", "loop", "dm_crypt", "xts", "cbc", "essiv",
                            "camellia_generic"]}

    @classmethod
    def make(cls, kind, number):
        """A volume of ours with the first content."""
        volume = cls.directory / f"ours-{number}"
        peers.ringdisk("convert", "--object", f"secret,id=s,file={cls.key}", "-f", "raw", "-O",
                       "luks", "-o", f"key-secret=s,{kind.ringdisk_options()}", cls.contents[0],
                       volume)
        return volume

    def device(self, disk):
        return f"/dev/vd{string.ascii_lowercase[self.disks.index(disk)]}"

    def run_script(self, script, **options):
        return self.guest.run(f"{FUNCTIONS}\n{script}", **options)

    def require_read_by_us(self, volume, content):
        target = self.directory / "read.raw"
        peers.ringdisk("convert", "--key-file", self.key, "-f", "luks", "-O", "raw", volume,
                       target)
        peers.require_same(content, target)

    def test_the_kernel_reads_and_writes_what_we_made(self):
        for kind, volume in zip(KINDS, self.ours):
            with self.subTest(str(kind)):
                self.run_script(f"""
                    open {self.device(volume)}
                    [ $(blockdev --getss /dev/mapper/plain) = {kind.sector_size} ]
                    cmp /dev/mapper/plain /dev/vda
                    dd if=/dev/vdb of=/dev/mapper/plain bs=64k conv=fsync 2>/dev/null
                    close; sync
                    """)
                self.require_read_by_us(volume, self.contents[1])

    def test_we_read_what_the_kernel_made(self):
        for kind, volume in zip(KINDS, self.theirs):
            with self.subTest(str(kind)):
                options = " ".join(map(str, kind.cryptsetup_options()))
                self.run_script(f"""
                    cryptsetup -q luksFormat {options} --offset 4096 {self.device(volume)} /run/key
                    open {self.device(volume)}
                    dd if=/dev/vda of=/dev/mapper/plain bs=64k conv=fsync 2>/dev/null
                    close; sync
                    """)
                self.require_read_by_us(volume, self.contents[0])
                seen = luks_reference.Volume(volume, self.key).read(SIZE)
                self.assertTrue(seen == self.contents[0].read_bytes(), "OpenSSL's bytes differ")

    def test_one_file_system_is_written_by_both_in_turn(self):
        self.run_script("""
            serve() {
              rm -f /run/nbd.sock
              ringdisk serve --key-file /run/key -f luks --nbd unix:/run/nbd.sock /tmp/volume \\
                >/run/server.log 2>&1 &
              server=$!
              while kill -0 $server; do
                if grep -q '^ringdisk: ready' /run/server.log; then break; fi
                usleep 50000
              done
              nbd-client -unix /run/nbd.sock /dev/nbd0
            }
            stop() { nbd-client -d /dev/nbd0; kill $server; wait $server; }

            truncate -s 48M /tmp/volume
            cryptsetup -q luksFormat --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \\
              --sector-size 4096 /tmp/volume /run/key
            loop=$(losetup -f); losetup $loop /tmp/volume
            head -c 5m /dev/urandom >/tmp/one; head -c 5m /dev/urandom >/tmp/other

            open $loop; mkfs.ext4 -q /dev/mapper/plain; mount /dev/mapper/plain /mnt
            cp /tmp/one /mnt/by-kernel; umount /mnt; close; losetup -d $loop

            serve; e2fsck -f -n /dev/nbd0; mount /dev/nbd0 /mnt
            cmp /tmp/one /mnt/by-kernel
            cp /tmp/other /mnt/by-us; umount /mnt; stop

            losetup $loop /tmp/volume; open $loop
            e2fsck -f -n /dev/mapper/plain; mount /dev/mapper/plain /mnt
            cmp /tmp/one /mnt/by-kernel; cmp /tmp/other /mnt/by-us
            umount /mnt; close; losetup -d $loop
            """)


if __name__ == "__main__":
    vm.main(needs=TOOLS)
