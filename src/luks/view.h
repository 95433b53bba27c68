// SPDX-License-Identifier: Apache-2.0
// LuksView: the payload of an encrypted disk as a storage. A filter over any storage: reads are
// deciphered in place in the caller's memory, writes are enciphered into buffers of the pool (the
// caller's stay as they are), offsets are shifted by where the payload begins.
//
//   caller ─> StorageAccess (pads to crypto sectors, under its lock) ─> LuksView ─> StorageAccess
//   of the child ─> file
//
// It knows nothing of headers: who has unlocked one (luks/volume.h) makes the view from cipher and
// place. It may own its child, or borrow a storage that others use as well: as qcow2's data child
// it is a view of the image's own file from byte 0 on, where IVs count the file's sectors.
//
// What differs from its child: the crypto sector is the smallest block; zeros are enciphered and
// written like other bytes, never fast; no range is known to be zeros; what a resize adds is not
// zeros. Discards pass only when allowed, because they tell which sectors are in use, and then read
// back as what deciphered zeros are: anything (as with dm-crypt).
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "block/storage_access.h"
#include "crypto/sector_cipher.h"
#include "runtime/clock.h"
#include "runtime/offload.h"

namespace ringdisk::luks {

// Nanoseconds a byte. In modes that chain sectors' blocks (cbc) enciphering cannot run ahead, and
// takes several times as long as deciphering.
struct CipherTimes {
  double decrypt = 0, encrypt = 0;
};

struct LuksViewOptions {
  std::shared_ptr<const SectorCipher> cipher;
  ByteCount payload_offset;               // a multiple of 512
  std::optional<ByteCount> payload_size;  // a multiple of the sector; none: to the child's end
  uint64_t iv_offset = 0;                 // added to sector numbers, in units of 512 bytes
  bool allow_discards = false;
  // Who may take part in what one shard has to cipher; none: each does its own.
  std::span<Shard* const> shards;
  // What ciphering a byte takes here (measure_cipher); decides what is worth handing over.
  CipherTimes ns_per_byte;
  std::optional<Error> error_beyond_end;  // StorageLimits; none: zeros
};

// By ciphering a little; at most two milliseconds.
CipherTimes measure_cipher(const SectorCipher& cipher, const Clock& clock);

class LuksView final : public StorageNode {
 public:
  LuksView(std::unique_ptr<SharedStorage> child, LuksViewOptions options);
  // Over a storage that outlives it and is closed by its owner.
  LuksView(SharedStorage& child, LuksViewOptions options);

  const char* driver() const override { return "luks"; }
  const StorageLimits& limits() const override { return limits_; }
  // Whole sectors.
  ByteCount size() const override;
  Task<ByteCount> allocated_size() override { return child_.node->allocated_size(); }
  Task<std::unique_ptr<StorageQueue>> open_queue(Shard& shard) override;
  Task<void> close() override;

  const SectorCipher& cipher() const { return *options_.cipher; }
  // How often another shard took part. Any thread; a hint.
  uint64_t helped() const { return offload_ ? offload_->helped() : 0; }

 private:
  // constant after construction
  const std::unique_ptr<SharedStorage> owned_;
  SharedStorage& child_;
  const LuksViewOptions options_;
  const StorageLimits limits_;
  const std::unique_ptr<Offload> offload_;  // null: each shard does its own
};

}  // namespace ringdisk::luks
