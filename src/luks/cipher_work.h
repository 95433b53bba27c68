// SPDX-License-Identifier: Apache-2.0
// CipherWork: ciphers memory on the calling shard, or, where that pays, with others that are idle
// (runtime/offload.h). Small work is done in place, without a suspension or a frame; longer work in
// slices between which the shard does other things, also when nobody helps. One a queue; its shard
// only.
#pragma once

#include <cstdint>

#include "async/task.h"
#include "base/io_buffers.h"
#include "crypto/sector_cipher.h"
#include "luks/cipher_buffers.h"
#include "runtime/offload.h"

namespace ringdisk::luks {

// Whole sectors to be ciphered, the first of which has the number `first` (in units of 512 bytes).
// Trivially copyable; the memory is somebody else's.
struct CipherPiece {
  static CipherPiece decrypting(uint64_t first, MutableBuffers target) {
    return {.encrypts = false, .first = first, .source = target, .target = target};
  }
  static CipherPiece encrypting(uint64_t first, ConstBuffers source, MutableBytes target) {
    return {.encrypts = true, .first = first, .source = source, .target = target};
  }

  size_t size() const { return target.size(); }
  // `offset` and `length` in whole sectors.
  CipherPiece part(size_t offset, size_t length) const;
  Result<void> compute(const SectorCipher& cipher) const {
    if (encrypts) return encrypt_into(cipher, first, source, target.single());
    return decrypt_in_place(cipher, first, target);
  }

  bool encrypts = false;
  uint64_t first = 0;
  ConstBuffers source;    // of encryption
  MutableBuffers target;  // one piece of memory when encrypting
};

class CipherWork {
 public:
  // `offload` may be null: each shard does its own. All outlive it.
  CipherWork(const SectorCipher& cipher, Offload* offload, double ns_per_byte, Shard& shard);

  // Whether `piece.compute()` is to be called right away, rather than run().
  bool is_small(size_t bytes) const { return bytes <= in_place_bytes_max_; }
  Task<void> run(CipherPiece piece);

 private:
  Task<void> run_in_turns(CipherPiece piece);
  Task<void> run_job(CipherPiece piece);
  Task<void> run_jobs(CipherPiece piece);
  uint64_t cost_ns(size_t bytes) const;

  // constant after construction
  const SectorCipher& cipher_;
  Offload* const offload_;
  const double ns_per_byte_;
  Shard& shard_;
  const size_t in_place_bytes_max_;
  const size_t part_bytes_;  // what takes about a slice
};

}  // namespace ringdisk::luks
