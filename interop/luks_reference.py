# SPDX-License-Identifier: Apache-2.0
"""The payload of a LUKS volume, by other people's code: cryptsetup hands out the volume key (it
needs no device mapper for that), OpenSSL's libcrypto enciphers sector by sector, as dm-crypt does.

A second opinion on what the bytes must be, where no kernel can be asked. That dm-crypt itself
agrees is held by e2e/luks_test.py.
"""
import ctypes
import ctypes.util
import functools
import hashlib
import json
import pathlib
import tempfile

import peers

SECTOR = 512  # what IVs count, whatever the size of the crypto sectors
OPENSSL_NAMES = {"aes": "AES", "camellia": "CAMELLIA", "aria": "ARIA", "sm4": "SM4"}


class Volume:
    """What a header says of its payload, and the volume key."""

    def __init__(self, path, key_file):
        self.path = pathlib.Path(path)
        dumped = _cryptsetup("luksDump", path).stdout
        self.version = int(_field(dumped, "Version"))
        if self.version == 1:
            self.cipher = f"{_field(dumped, 'Cipher name')}-{_field(dumped, 'Cipher mode')}"
            self.offset = int(_field(dumped, "Payload offset")) * SECTOR
            self.sector_size = SECTOR
        else:
            metadata = json.loads(_cryptsetup("luksDump", "--dump-json-metadata", path).stdout)
            segment = metadata["segments"]["0"]
            self.cipher = segment["encryption"]
            self.offset = int(segment["offset"])
            self.sector_size = segment["sector_size"]
        with tempfile.TemporaryDirectory(prefix="ringdisk-interop-") as directory:
            file = pathlib.Path(directory) / "volume-key"
            _cryptsetup("luksDump", "--dump-volume-key", "--batch-mode", "--key-file", key_file,
                        "--volume-key-file", file, path)
            self.key = file.read_bytes()

    def write(self, content, at=0):
        """Enciphers `content` into the payload, at byte `at`."""
        with open(self.path, "r+b") as file:
            file.seek(self.offset + at)
            file.write(self._apply(content, at, encrypts=True))

    def read(self, length, at=0):
        """The content of the payload."""
        with open(self.path, "rb") as file:
            file.seek(self.offset + at)
            content = file.read(length)
        return self._apply(content, at, encrypts=False)

    def _apply(self, content, at, encrypts):
        return apply_cipher(self.cipher, self.key, self.sector_size, at // SECTOR, content,
                            encrypts)


def apply_cipher(cipher, key, sector_size, first, content, encrypts):
    """Enciphers or deciphers whole sectors; `first` is the number of the first one in units of 512
    bytes. `cipher` is as dm-crypt writes it: aes-xts-plain64, aes-cbc-essiv:sha256 …"""
    name, mode, iv = cipher.split("-", 2)
    bits = len(key) * 8 // (2 if mode == "xts" else 1)
    method = _method(f"{OPENSSL_NAMES[name]}-{bits}-{mode.upper()}")
    pieces = []
    for at in range(0, len(content), sector_size):
        number = _iv(name, iv, key, first + at // SECTOR)
        pieces.append(_run(method, key, number, content[at:at + sector_size], encrypts))
    return b"".join(pieces)


def _iv(name, kind, key, number):
    if kind == "plain":
        return (number & 0xffffffff).to_bytes(16, "little")
    if kind == "plain64":
        return number.to_bytes(16, "little")
    generator, _, hash_name = kind.partition(":")
    if generator != "essiv":
        raise ValueError(f"no IV {kind} here")
    salt = hashlib.new(hash_name, key).digest()
    method = _method(f"{OPENSSL_NAMES[name]}-{len(salt) * 8}-ECB")
    return _run(method, salt, None, number.to_bytes(16, "little"), encrypts=True)


@functools.cache
def _libcrypto():
    library = ctypes.CDLL(ctypes.util.find_library("crypto") or "libcrypto.so.3")
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
            ("EVP_CIPHER_fetch", pointer, [pointer, text, text]),
            ("EVP_CIPHER_CTX_new", pointer, []),
            ("EVP_CIPHER_CTX_free", None, [pointer]),
            ("EVP_CIPHER_CTX_set_padding", ctypes.c_int, [pointer, ctypes.c_int]),
            ("EVP_CipherInit_ex2", ctypes.c_int, [pointer, pointer, text, text, ctypes.c_int,
                                                  pointer]),
            ("EVP_CipherUpdate", ctypes.c_int, [pointer, text, pointer, text, ctypes.c_int])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@functools.cache
def _method(name):
    method = _libcrypto().EVP_CIPHER_fetch(None, name.encode(), None)
    if not method:
        raise ValueError(f"OpenSSL has no {name}")
    return method


def _run(method, key, iv, content, encrypts):
    library = _libcrypto()
    context = library.EVP_CIPHER_CTX_new()
    target = ctypes.create_string_buffer(len(content) + 64)
    written = ctypes.c_int()
    try:
        done = (library.EVP_CipherInit_ex2(context, method, key, iv, int(encrypts), None) == 1
                and library.EVP_CIPHER_CTX_set_padding(context, 0) == 1
                and library.EVP_CipherUpdate(context, target, ctypes.byref(written), content,
                                             len(content)) == 1)
    finally:
        library.EVP_CIPHER_CTX_free(context)
    if not done or written.value != len(content):
        raise ValueError("OpenSSL refused a sector")
    return target.raw[:len(content)]


def _cryptsetup(*arguments):
    return peers.run([peers.need("cryptsetup"), *arguments])


def _field(text, name):
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon and key.strip() == name:
            return value.strip()
    raise ValueError(f"cryptsetup luksDump shows no {name}")
