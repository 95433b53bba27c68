# SPDX-License-Identifier: Apache-2.0
"""The kinds of LUKS volumes that cryptsetup can make: every combination of version, cipher, length
of the key, hash, key derivation and sector size, and how each program is told to make one.

Measured with cryptsetup 2.6 without a device mapper: it needs OpenSSL's ciphers for key slots then,
so XTS for AES alone, and CBC for Camellia besides.
"""
import concurrent.futures
import dataclasses
import itertools
import os

CIPHERS = (("aes-xts-plain64", 512), ("aes-xts-plain64", 256), ("aes-xts-plain", 512),
           ("aes-xts-plain", 256), ("aes-cbc-essiv:sha256", 256), ("aes-cbc-essiv:sha256", 128),
           ("aes-cbc-plain64", 256), ("aes-cbc-plain64", 192), ("aes-cbc-plain64", 128),
           ("aes-cbc-plain", 256), ("aes-cbc-plain", 128), ("camellia-cbc-plain64", 256))
RARE_CIPHERS = (("camellia-cbc-plain64", 128), ("camellia-cbc-plain64", 192),
                ("camellia-cbc-plain", 256), ("camellia-cbc-essiv:sha256", 256),
                ("aes-cbc-essiv:md5", 128), ("aes-cbc-essiv:sm3", 256),
                ("aes-cbc-essiv:sha3-256", 256))
HASHES = ("sha256", "sha1", "sha512", "ripemd160")
# Whirlpool and MD4 come from OpenSSL's legacy provider; the last two are other names that
# cryptsetup takes and records.
RARE_HASHES = ("sha224", "sha384", "sha512-224", "sha512-256", "sha3-224", "sha3-256", "sha3-384",
               "sha3-512", "blake2b-512", "blake2s-256", "sm3", "md5-sha1", "whirlpool",
               "rmd160", "SHA2-256")
SHORT_HASHES = ("md5", "md4")  # cryptsetup has them in LUKS2, qemu-img MD5 in LUKS1
QEMU_HASHES = ("sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", "sm3", "md5")
ARGON2 = ("argon2id", "argon2i")
SECTOR_SIZES = (512, 1024, 2048, 4096)
SHOWN_FAILURES_MAX = 5


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of volume; `hash` is None where the key derivation is argon2."""

    version: int
    cipher: str
    key_bits: int
    hash: str | None = "sha256"
    kdf: str = "pbkdf2"
    sector_size: int = 512

    def cryptsetup_options(self):
        """For cryptsetup luksFormat and `ringdisk luks format`, which take the same words; with the
        cheapest key derivation that cryptsetup takes."""
        words = ["--type", f"luks{self.version}", "--cipher", self.cipher,
                 "--key-size", self.key_bits]
        if self.hash:
            words += ["--hash", self.hash]
        if self.version == 2:
            words += ["--sector-size", self.sector_size]
        return words + self.derivation_options()

    def derivation_options(self):
        """For each command of cryptsetup or `ringdisk luks` that fills a key slot."""
        words = ["--pbkdf", self.kdf]
        if self.kdf == "pbkdf2":
            return words + ["--pbkdf-force-iterations", 1000]
        return words + ["--pbkdf-force-iterations", 4, "--pbkdf-memory", 32, "--pbkdf-parallel", 1]

    def ringdisk_options(self):
        """The text of ringdisk's -o, but for the secret."""
        options = {"version": self.version, **self._cipher_options()}
        if self.version == 2:
            options |= {"sector-size": self.sector_size, "pbkdf": self.kdf}
        if self.kdf == "pbkdf2":
            options["pbkdf-force-iterations"] = 1000
        else:
            options |= {"pbkdf-force-iterations": 4, "pbkdf-memory": 32, "pbkdf-parallel": 1}
        return _joined(options)

    def qemu_options(self):
        """The text of qemu-img's -o, but for the secret; version 1 alone. It counts iterations for
        at least a second, whatever it is told."""
        return _joined({**self._cipher_options(), "iter-time": 10})

    def _cipher_options(self):
        name, mode, iv = self.cipher.split("-", 2)
        generator, _, iv_hash = iv.partition(":")
        bits = self.key_bits // (2 if mode == "xts" else 1)
        return {"cipher-alg": f"{name}-{bits}", "cipher-mode": mode, "ivgen-alg": generator,
                "ivgen-hash-alg": iv_hash, "hash-alg": self.hash}

    def qemu_opens(self):
        """Whether qemu-img does: LUKS1 alone, and it stops at an assertion (QEMU 7 to 10) where
        the split key is not whole sectors, as with 192 bits."""
        return (self.version == 1 and self.cipher.startswith("aes-") and self.key_bits != 192
                and not self.cipher.endswith("sha3-256") and self.hash in QEMU_HASHES)

    def __str__(self):
        return (f"LUKS{self.version} {self.cipher}/{self.key_bits} {self.kdf}"
                f" {self.hash or ''} sectors of {self.sector_size}")


def _joined(options):
    return ",".join(f"{key}={value}" for key, value in options.items() if value)


def qemu_kinds():
    """What qemu-img can make and we can open: each cipher, mode and IV with each length of the key,
    the hashes in turn."""
    ciphers = [(f"aes-cbc-{iv}", bits) for iv in ("plain", "plain64", "essiv:sha256")
               for bits in (128, 256)]
    ciphers += [(f"aes-xts-{iv}", bits) for iv in ("plain", "plain64") for bits in (256, 512)]
    hashes = itertools.cycle(QEMU_HASHES)
    return [Kind(1, cipher, bits, hash_name) for (cipher, bits), hash_name in zip(ciphers, hashes)]


def kinds_of(version):
    """All kinds of one version, or a seventh of them where the program under test is slowed by a
    sanitizer; the release build's run has them all."""
    derivations = [("pbkdf2", name) for name in HASHES]
    sizes = SECTOR_SIZES[:1]
    if version == 2:
        derivations += [(kdf, None) for kdf in ARGON2]
        sizes = SECTOR_SIZES
    kinds = [Kind(version, cipher, bits, hash_name, kdf, size) for (cipher, bits), (kdf, hash_name),
             size in itertools.product(CIPHERS, derivations, sizes)]
    names = RARE_HASHES + (SHORT_HASHES if version == 2 else ())
    kinds += [Kind(version, "aes-xts-plain64", 512, name) for name in names]
    kinds += [Kind(version, cipher, bits) for cipher, bits in RARE_CIPHERS]
    return kinds if os.environ.get("RD_VARIANT", "release") == "release" else kinds[::7]


def for_each(kinds, check):
    """Calls `check` with each, on all cores; AssertionError that names those it failed for."""
    failures = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {pool.submit(check, kind): kind for kind in kinds}
        for future in concurrent.futures.as_completed(futures):
            if future.exception():
                failures.append(f"{futures[future]}: {future.exception()}")
    if failures:
        raise AssertionError(f"{len(failures)} of {len(kinds)} kinds failed:\n"
                             + "\n".join(sorted(failures)[:SHOWN_FAILURES_MAX]))
