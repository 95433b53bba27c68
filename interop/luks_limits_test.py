#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a LUKS header may ask for: --kdf-memory-max, --kdf-work-max and --kdf-iterations-max of
every command, and the same words for one image. Headers come from cryptsetup and qemu-img."""
import peers
from luks_matrix import Kind
from luks_volumes import SIZE, VolumeCase

ARGON2 = Kind(2, "aes-xts-plain64", 512, hash=None, kdf="argon2id")  # 4 passes over 32 KiB
PBKDF2 = Kind(1, "aes-xts-plain64", 512)  # 1000 iterations
LIMITS = ((ARGON2, "kdf-memory-max", "32k", "31k"), (ARGON2, "kdf-work-max", "128k", "127k"),
          (PBKDF2, "kdf-iterations-max", "1000", "999"))


class Limits(VolumeCase):
    """A header just within a limit opens; one just beyond is refused, and the refusal names what
    sets the limit."""

    def refused(self, option, *words):
        done = peers.ringdisk(*words, expect=1)
        self.assertRegex(done.stderr, rf"^ringdisk: /\S+: .*{option} sets the limit")
        self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_of_every_command(self):
        for kind, option, enough, little in LIMITS:
            with self.subTest(option), self.scratch() as directory:
                volume = self.they_make(kind, directory)
                words = ("convert", "--key-file", self.keys[0], "-f", "luks", "-O", "raw", volume,
                         directory / "raw")
                self.refused(option, *words, f"--{option}={little}")
                peers.ringdisk(*words, f"--{option}={enough}")
                peers.require_same(self.raw, directory / "raw")

    def test_of_one_image_over_those_of_the_command(self):
        for kind, option, enough, little in LIMITS:
            with self.subTest(option), self.scratch() as directory:
                volume = self.they_make(kind, directory)
                words = ("convert", "--key-file", self.keys[0], "-O", "raw", "--image-opts")
                image = f"driver=luks,file.filename={volume},{option}="
                self.refused(option, *words, f"--{option}=4095M", image + little, directory / "raw")
                peers.ringdisk(*words, f"--{option}=1", image + enough, directory / "raw")
                peers.require_same(self.raw, directory / "raw")

    def test_of_commands_on_key_slots(self):
        for kind, option, enough, little in LIMITS:
            with self.subTest(option), self.scratch() as directory:
                volume = self.they_make(kind, directory)
                words = ("luks", "add-key", "--key-file", self.keys[0], "--new-key-file",
                         self.keys[1], *kind.derivation_options(), volume)
                self.refused(option, *words, f"--{option}={little}")
                peers.ringdisk(*words, f"--{option}={enough}")
                self.require_opens(volume, *self.keys)

    def test_of_amend(self):
        with self.scratch() as directory:
            volume = self.they_make(PBKDF2, directory)
            words = ("amend", "-f", "luks", "--object", f"secret,id=old,file={self.keys[0]}",
                     "--object", f"secret,id=new,file={self.keys[1]}", "-o",
                     "key-secret=old,state=active,new-secret=new,iter-time=10", volume)
            self.refused("kdf-iterations-max", *words, "--kdf-iterations-max=999")
            peers.ringdisk(*words)
            self.require_opens(volume, *self.keys)

    def test_inside_qcow2(self):
        with self.scratch() as directory:
            image = directory / "disk.qcow2"
            secret = f"secret,id=s,file={self.keys[0]}"
            peers.qemu_img("convert", "--object", secret, "-O", "qcow2", "-o",
                           "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10",
                           "-f", "raw", self.raw, image)
            described = f"driver=qcow2,encrypt.key-secret=s,file.filename={image}"
            words = ("convert", "--object", secret, "--image-opts", "-O", "raw")
            self.refused("kdf-iterations-max", *words, "--kdf-iterations-max=10", described,
                         directory / "raw")
            self.refused("kdf-iterations-max", *words,
                         f"{described},encrypt.kdf-iterations-max=10", directory / "raw")
            peers.ringdisk(*words, "--kdf-iterations-max=10",
                           f"{described},encrypt.kdf-iterations-max=100000000",
                           directory / "raw")
            peers.require_same(self.raw, directory / "raw")
            self.assertEqual((directory / "raw").stat().st_size, SIZE)


if __name__ == "__main__":
    peers.main(needs=["cryptsetup", "qemu-img"])
