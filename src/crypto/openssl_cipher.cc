// SPDX-License-Identifier: Apache-2.0
// Every cipher, mode and IV that is not our hot loop: xts and cbc of whatever block ciphers OpenSSL
// has, IVs plain, plain64 and essiv. A context of OpenSSL has a key schedule and the state of one
// stream, so it serves one thread at a time: threads draw contexts from a small pool and put them
// back; the first thread to find it empty makes a copy, later ones do not.
//
//   slots  [ c0 ][    ][ c2 ][    ] …      a thread begins at a slot of its own, so that it mostly
//            ^ taken by one exchange         finds the context it used last
#include "crypto/openssl_cipher.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <string>

#include "base/check.h"
#include "base/endian.h"
#include "crypto/digest.h"
#include "crypto/secret.h"

namespace ringdisk::crypto_internal {
namespace {

constexpr size_t kIvBytes = 16;  // of all block ciphers here
// IVs that are made at once: essiv enciphers them in one call.
constexpr size_t kBatchSectors = 32;

struct FreeMethod {
  void operator()(EVP_CIPHER* method) const { EVP_CIPHER_free(method); }
};
using Method = std::unique_ptr<EVP_CIPHER, FreeMethod>;
struct FreeContext {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, FreeContext>;

const unsigned char* chars(Bytes bytes) {
  // why: OpenSSL's type for bytes
  return reinterpret_cast<const unsigned char*>(bytes.data());
}
unsigned char* chars(MutableBytes bytes) {
  // why: OpenSSL's type for bytes
  return reinterpret_cast<unsigned char*>(bytes.data());
}

Error failure(const char* operation) { return Error::of(ErrorKind::kNoSpace, operation); }
Error unsupported() { return Error::of(ErrorKind::kUnsupported, "choose cipher"); }

// Asking for what is not there leaves no remark in OpenSSL's list of this thread's errors, in which
// TLS would find it.
class [[nodiscard]] ErrorMark {
 public:
  ErrorMark() { ERR_set_mark(); }
  ErrorMark(const ErrorMark&) = delete;
  ErrorMark& operator=(const ErrorMark&) = delete;
  ~ErrorMark() { ERR_pop_to_mark(); }
};

// "aes", "xts", 64 -> AES-256-XTS. Null: OpenSSL has none that takes such a key and 16-byte IVs.
Method find_method(const std::string& cipher, const std::string& mode, size_t key_bytes) {
  const bool is_double = mode == "xts";
  if (key_bytes == 0 || key_bytes > 64 || (is_double && key_bytes % 2 != 0)) return nullptr;
  const size_t bits = 8 * (is_double ? key_bytes / 2 : key_bytes);
  // SM4 has one key size, which is not in its name.
  const std::string size = cipher == "sm4" ? "-" : "-" + std::to_string(bits) + "-";
  Method method(EVP_CIPHER_fetch(nullptr, (cipher + size + mode).c_str(), nullptr));
  if (!method || EVP_CIPHER_get_key_length(method.get()) != static_cast<int>(key_bytes)) {
    return nullptr;
  }
  const size_t unit = mode == "ecb" ? static_cast<size_t>(EVP_CIPHER_get_block_size(method.get()))
                                    : static_cast<size_t>(EVP_CIPHER_get_iv_length(method.get()));
  return unit == kIvBytes ? std::move(method) : nullptr;
}

Context make_context(const EVP_CIPHER* method, Bytes key, bool encrypts) {
  Context context(EVP_CIPHER_CTX_new());
  if (!context ||
      !EVP_CipherInit_ex2(context.get(), method, chars(key), nullptr, encrypts ? 1 : 0, nullptr)) {
    return nullptr;
  }
  EVP_CIPHER_CTX_set_padding(context.get(), 0);
  return context;
}

Context copy_context(const Context& original) {
  Context copy(EVP_CIPHER_CTX_new());
  if (!copy || !EVP_CIPHER_CTX_copy(copy.get(), original.get())) return nullptr;
  return copy;
}

// What one thread needs to work on sectors.
struct Contexts {
  Context encrypt, decrypt;
  Context essiv;  // null without essiv
};

std::unique_ptr<Contexts> copy_contexts(const Contexts& original) {
  auto copy = std::make_unique<Contexts>();
  copy->encrypt = copy_context(original.encrypt);
  copy->decrypt = copy_context(original.decrypt);
  if (original.essiv) copy->essiv = copy_context(original.essiv);
  if (!copy->encrypt || !copy->decrypt || !copy->essiv != !original.essiv) return nullptr;
  return copy;
}

// Any thread.
class ContextPool {
 public:
  explicit ContextPool(Contexts original) : original_(std::move(original)) {}
  ContextPool(const ContextPool&) = delete;
  ContextPool& operator=(const ContextPool&) = delete;
  ~ContextPool() {
    for (std::atomic<Contexts*>& slot : slots_) {
      const std::unique_ptr<Contexts> owned(slot.load(std::memory_order_relaxed));
    }
  }

  // Null: there was no memory for another copy.
  std::unique_ptr<Contexts> take() {
    const size_t own = own_slot();
    for (size_t i = 0; i < kSlots; ++i) {
      std::atomic<Contexts*>& slot = slots_[(own + i) % kSlots];
      if (slot.load(std::memory_order_relaxed) == nullptr) continue;
      std::unique_ptr<Contexts> taken(slot.exchange(nullptr, std::memory_order_acquire));
      if (taken) return taken;
    }
    return copy_contexts(original_);
  }
  void put_back(std::unique_ptr<Contexts> contexts) {
    const size_t own = own_slot();
    for (size_t i = 0; i < kSlots; ++i) {
      std::atomic<Contexts*>& slot = slots_[(own + i) % kSlots];
      Contexts* empty = nullptr;
      if (slot.compare_exchange_strong(empty, contexts.get(), std::memory_order_release,
                                       std::memory_order_relaxed)) {
        static_cast<void>(contexts.release());
        return;
      }
    }
  }

 private:
  static constexpr size_t kSlots = 64;

  // Threads have stacks at least a megabyte apart.
  static size_t own_slot() {
    const char here = 0;
    // why: where the stack lies tells threads apart without asking the system
    return (reinterpret_cast<uintptr_t>(&here) >> 20) % kSlots;
  }

  const Contexts original_;  // copied from, by any thread
  std::array<std::atomic<Contexts*>, kSlots> slots_ = {};
};

enum class IvKind : uint8_t { kPlain, kPlain64, kEssiv };

class OpensslCipher final : public SectorCipher {
 public:
  OpensslCipher(Contexts contexts, IvKind iv, uint32_t sector_size)
      : SectorCipher(sector_size), iv_(iv), pool_(std::move(contexts)) {}

  Result<void> encrypt(uint64_t first, Bytes source, MutableBytes target) const override {
    return run(first, source, target, true);
  }
  Result<void> decrypt(uint64_t first, Bytes source, MutableBytes target) const override {
    return run(first, source, target, false);
  }
  std::string_view kernel() const override { return "openssl"; }

 private:
  Result<void> run(uint64_t first, Bytes source, MutableBytes target, bool encrypts) const;
  bool make_ivs(uint64_t first, MutableBytes ivs, EVP_CIPHER_CTX* essiv) const;
  bool cipher_batch(uint64_t first, Bytes source, MutableBytes target, EVP_CIPHER_CTX* stream,
                    EVP_CIPHER_CTX* essiv) const;

  const IvKind iv_;
  mutable ContextPool pool_;  // any thread
};

// `ivs` holds one for each sector from the one numbered `first` on.
bool OpensslCipher::make_ivs(uint64_t first, MutableBytes ivs, EVP_CIPHER_CTX* essiv) const {
  const uint64_t step = sector_size() / kSectorNumberBytes;
  fill_zero(ivs);
  for (size_t i = 0; i < ivs.size() / kIvBytes; ++i) {
    const uint64_t number = first + i * step;
    store_le64(ivs.data() + i * kIvBytes, iv_ == IvKind::kPlain ? number & 0xffffffff : number);
  }
  if (iv_ != IvKind::kEssiv) return true;
  int written = 0;
  return EVP_CipherUpdate(essiv, chars(ivs), &written, chars(ivs), static_cast<int>(ivs.size())) ==
             1 &&
         static_cast<size_t>(written) == ivs.size();
}

bool OpensslCipher::cipher_batch(uint64_t first, Bytes source, MutableBytes target,
                                 EVP_CIPHER_CTX* stream, EVP_CIPHER_CTX* essiv) const {
  std::array<std::byte, kBatchSectors * kIvBytes> memory;
  const size_t sectors = source.size() / sector_size();
  const MutableBytes ivs = MutableBytes(memory).first(sectors * kIvBytes);
  if (!make_ivs(first, ivs, essiv)) return false;
  for (size_t i = 0; i < sectors; ++i) {
    const MutableBytes iv = ivs.subspan(i * kIvBytes, kIvBytes);
    const Bytes from = source.subspan(i * sector_size(), sector_size());
    const MutableBytes to = target.subspan(i * sector_size(), sector_size());
    int written = 0;
    if (EVP_CipherInit_ex2(stream, nullptr, nullptr, chars(iv), -1, nullptr) != 1 ||
        EVP_CipherUpdate(stream, chars(to), &written, chars(from), static_cast<int>(from.size())) !=
            1 ||
        static_cast<size_t>(written) != from.size()) {
      return false;
    }
  }
  return true;
}

Result<void> OpensslCipher::run(uint64_t first, Bytes source, MutableBytes target,
                                bool encrypts) const {
  check_request(first, source, target);
  const char* operation = encrypts ? "encrypt" : "decrypt";
  std::unique_ptr<Contexts> contexts = pool_.take();
  if (!contexts) return failure(operation);
  EVP_CIPHER_CTX* stream = (encrypts ? contexts->encrypt : contexts->decrypt).get();
  const size_t batch = kBatchSectors * sector_size();
  for (size_t done = 0; done < source.size(); done += batch) {
    const size_t bytes = std::min(batch, source.size() - done);
    if (!cipher_batch(first + done / kSectorNumberBytes, source.subspan(done, bytes),
                      target.subspan(done, bytes), stream, contexts->essiv.get())) {
      return failure(operation);
    }
  }
  pool_.put_back(std::move(contexts));
  return {};
}

struct Plan {
  Method method;
  Method essiv;  // null without essiv
  Hash essiv_hash = Hash::kSha256;
  IvKind iv = IvKind::kPlain64;
};

// essiv: the same block cipher, keyed with the hash of the key (a full digest).
Result<void> plan_essiv(const CipherSpec& spec, Plan& plan) {
  const std::optional<Hash> hash = find_available_hash(spec.iv_hash);
  if (!hash) return unsupported();
  plan.iv = IvKind::kEssiv;
  plan.essiv_hash = *hash;
  plan.essiv = find_method(spec.cipher, "ecb", digest_size(*hash));
  if (!plan.essiv) return unsupported();
  return {};
}

Result<Plan> make_plan(const CipherSpec& spec, size_t key_bytes) {
  const ErrorMark mark;
  Plan plan;
  if (spec.mode != "xts" && spec.mode != "cbc") return unsupported();
  plan.method = find_method(spec.cipher, spec.mode, key_bytes);
  if (!plan.method) return unsupported();
  if (spec.iv == "essiv") {
    RETURN_IF_ERROR(plan_essiv(spec, plan));
    return plan;
  }
  if (spec.iv != "plain" && spec.iv != "plain64") return unsupported();  // no hash is made use of
  plan.iv = spec.iv == "plain" ? IvKind::kPlain : IvKind::kPlain64;
  return plan;
}

Result<Context> make_essiv_context(const Plan& plan, Bytes key) {
  std::array<std::byte, kDigestBytesMax> memory;
  const WipeAtEnd wiped(memory);
  const MutableBytes digest = MutableBytes(memory).first(digest_size(plan.essiv_hash));
  RETURN_IF_ERROR(compute_digest(plan.essiv_hash, {key}, digest));
  Context context = make_context(plan.essiv.get(), digest, true);
  if (!context) return failure("choose cipher");
  return context;
}

}  // namespace

bool has_openssl_cipher(const CipherSpec& spec, size_t key_bytes) {
  return make_plan(spec, key_bytes).ok();
}

Result<std::unique_ptr<SectorCipher>> make_openssl_cipher(const CipherSpec& spec, Bytes key,
                                                          uint32_t sector_size) {
  ASSIGN_OR_RETURN(Plan plan, make_plan(spec, key.size()));
  Contexts contexts;
  contexts.encrypt = make_context(plan.method.get(), key, true);
  contexts.decrypt = make_context(plan.method.get(), key, false);
  if (!contexts.encrypt || !contexts.decrypt) return failure("choose cipher");
  if (plan.essiv) {
    ASSIGN_OR_RETURN(contexts.essiv, make_essiv_context(plan, key));
  }
  return std::make_unique<OpensslCipher>(std::move(contexts), plan.iv, sector_size);
}

}  // namespace ringdisk::crypto_internal
