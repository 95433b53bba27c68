// SPDX-License-Identifier: Apache-2.0
// Words to a FormatRequest.
#include "luks/create_options.h"

#include <algorithm>
#include <array>
#include <limits>

#include "base/diagnostics.h"

namespace ringdisk::luks {
namespace {

// qemu-img's names of ciphers, which carry the length of the key.
struct NamedCipher {
  std::string_view name, cipher;
  size_t key_bytes;
};
constexpr std::array<NamedCipher, 14> kCiphers = {{
    {"aes-128", "aes", 16},
    {"aes-192", "aes", 24},
    {"aes-256", "aes", 32},
    {"serpent-128", "serpent", 16},
    {"serpent-192", "serpent", 24},
    {"serpent-256", "serpent", 32},
    {"twofish-128", "twofish", 16},
    {"twofish-192", "twofish", 24},
    {"twofish-256", "twofish", 32},
    {"camellia-128", "camellia", 16},
    {"camellia-192", "camellia", 24},
    {"camellia-256", "camellia", 32},
    {"cast5-128", "cast5", 16},
    {"sm4", "sm4", 16},
}};

// One set of options being taken.
class OptionTaker {
 public:
  OptionTaker(Options& options, Diagnostics& diagnostics)
      : options_(options), diagnostics_(diagnostics) {}

  Result<FormatRequest> take() {
    FormatRequest request;
    RETURN_IF_ERROR(take_cipher(request));
    RETURN_IF_ERROR(take_hash(request));
    RETURN_IF_ERROR(take_kdf(request));
    RETURN_IF_ERROR(take_number("version", request.version, 1));
    RETURN_IF_ERROR(take_number("sector-size", request.sector_size, 512));
    request.label = options_.take("label").value_or("");
    request.uuid = options_.take("uuid").value_or("");
    return request;
  }

 private:
  Error refuse(std::string why) const {
    return diagnostics_.explain(Error::of(ErrorKind::kInvalid, "create"), std::move(why));
  }

  // As the user writes it.
  std::string whole(std::string_view key) const { return options_.prefix() + std::string(key); }

  Result<void> take_number(const char* key, uint32_t& target, uint32_t otherwise) {
    ASSIGN_OR_RETURN(uint64_t number, options_.take_size(key, otherwise, diagnostics_));
    if (number > std::numeric_limits<uint32_t>::max()) {
      return refuse(whole(key) + "=" + std::to_string(number) + " is too large");
    }
    target = static_cast<uint32_t>(number);
    return {};
  }
  Result<void> take_optional_number(const char* key, std::optional<uint32_t>& target) {
    if (!options_.has(key)) return {};
    return take_number(key, target.emplace(), 0);
  }

  Result<void> take_cipher(FormatRequest& request) {
    const std::string name = options_.take("cipher-alg").value_or("aes-256");
    auto has_name = [&](const NamedCipher& one) { return one.name == name; };
    const auto found = std::ranges::find_if(kCiphers, has_name);
    if (found == kCiphers.end()) {
      return refuse(whole("cipher-alg") + " '" + name + "' is not known; the default is aes-256");
    }
    CipherSpec& cipher = request.cipher;
    cipher.cipher = found->cipher;
    cipher.mode = options_.take("cipher-mode").value_or("xts");
    cipher.iv = options_.take("ivgen-alg").value_or("plain64");
    const std::optional<std::string> hash = options_.take("ivgen-hash-alg");
    if (hash && !find_hash(*hash)) {
      return refuse(whole("ivgen-hash-alg") + " '" + *hash + "' is not known");
    }
    // Where IVs are made without a hash it says nothing, and QEMU takes it all the same.
    if (cipher.iv == "essiv") cipher.iv_hash = hash.value_or("sha256");
    request.key_bytes = found->key_bytes * (cipher.mode == "xts" ? 2 : 1);
    return {};
  }

  Result<void> take_hash(FormatRequest& request) {
    const std::string name = options_.take("hash-alg").value_or("sha256");
    const std::optional<Hash> hash = find_hash(name);
    if (!hash) {
      return refuse(whole("hash-alg") + " '" + name + "' is not known; the default is sha256");
    }
    request.hash = request.kdf.hash = *hash;
    return {};
  }

  Result<void> take_kdf(FormatRequest& request) {
    KdfChoice& kdf = request.kdf;
    if (const std::optional<std::string> name = options_.take("pbkdf")) {
      kdf.kind = find_kdf(*name);
      if (!kdf.kind) {
        return refuse(whole("pbkdf") + " is pbkdf2, argon2i or argon2id, not '" + *name + "'");
      }
    }
    RETURN_IF_ERROR(take_number("iter-time", kdf.milliseconds, kdf.milliseconds));
    if (kdf.milliseconds == 0) {
      return refuse(whole("iter-time") + " is a number of milliseconds from 1 on");
    }
    RETURN_IF_ERROR(take_optional_number("pbkdf-force-iterations", kdf.iterations));
    RETURN_IF_ERROR(take_optional_number("pbkdf-memory", kdf.memory_kib));
    return take_optional_number("pbkdf-parallel", kdf.lanes);
  }

  Options& options_;
  Diagnostics& diagnostics_;
};

}  // namespace

OptionLines cipher_option_lines(bool with_version2) {
  OptionLines lines = {
      {"cipher-alg=<str>", "Name of encryption cipher algorithm (default: aes-256)"},
      {"cipher-mode=<str>", "Name of encryption cipher mode (default: xts)"},
      {"hash-alg=<str>", "Name of encryption hash algorithm (default: sha256)"},
      {"iter-time=<num>", "Time to spend in PBKDF in milliseconds (default: 2000)"},
      {"ivgen-alg=<str>", "Name of IV generator algorithm (default: plain64)"},
      {"ivgen-hash-alg=<str>", "Name of IV generator hash algorithm"},
      {"key-secret=<str>", "ID of the secret that provides the keyslot passphrase"},
      {"pbkdf-force-iterations=<num>", "Iterations of the PBKDF, whatever time they take"},
      {"uuid=<str>", "UUID of the volume (default: a new one)"},
  };
  if (!with_version2) return lines;
  const OptionLines more = {
      {"label=<str>", "Label of the volume (version=2)"},
      {"pbkdf=<str>", "pbkdf2, argon2i or argon2id (default of version=2: argon2id)"},
      {"pbkdf-memory=<num>", "Memory of argon2 in KiB, at most"},
      {"pbkdf-parallel=<num>", "Threads of argon2"},
      {"sector-size=<num>", "512, 1024, 2048 or 4096 (version=2; default: 512)"},
      {"version=<num>", "Version of LUKS, 1 or 2 (default: 1)"},
  };
  lines.insert(lines.end(), more.begin(), more.end());
  std::ranges::sort(lines);
  return lines;
}

Result<FormatRequest> take_format_options(Options& options, Diagnostics& diagnostics) {
  return OptionTaker(options, diagnostics).take();
}

std::string qemu_cipher_name(const CipherSpec& cipher, size_t key_bytes) {
  const size_t own_bytes = cipher.mode == "xts" ? key_bytes / 2 : key_bytes;
  for (const NamedCipher& one : kCiphers) {
    if (one.cipher == cipher.cipher && one.key_bytes == own_bytes) return std::string(one.name);
  }
  return cipher.cipher + "-" + std::to_string(own_bytes * 8);
}

}  // namespace ringdisk::luks
