// SPDX-License-Identifier: Apache-2.0
// LuksHeader: the header of a volume as it was read, of either version, and the ways in which one
// reaches the disk. LUKS2 has two copies: the newer right one counts; the other is brought up to
// it, with a salt of its own, by whoever opens for writing.
//
// Order on disk, which makes a crash at any moment leave a header that some right passphrase opens:
//   - material of a key slot is durable before a header names it, and wiped only after no header
//     names it any more, durably;
//   - the first copy is durable before the second one is touched;
//   - LUKS1: what a key slot needs is durable before the word that makes it count.
//
// A copy that is right but says what this program cannot read is not damaged: where it is the newer
// one, the header is refused, and not taken back to what it was before (decision 0019).
//
// Owned by the operation that reads it; shard 0 or whichever opens the volume. Header I/O is rare:
// nothing here is on the path of a request.
#pragma once

#include <optional>

#include "async/task.h"
#include "block/graph.h"
#include "luks/header_window.h"
#include "luks/luks1_header.h"
#include "luks/luks2_metadata.h"

namespace ringdisk::luks {

// A LUKS2 header with the state of its two copies.
struct Luks2Header {
  Luks2Binary binary;                       // of the copy that counts; its salt is that copy's
  std::array<std::byte, 64> salts[2] = {};  // of each copy; of a damaged one a new one
  Json json;
  Luks2Metadata metadata;
  // Which copy is damaged or older, and what is wrong with it; nullopt: both say the same.
  std::optional<Luks2Copy> bad_copy;
  std::string damage;
  // What lies in place of the first copy is no part of a LUKS header: a file system, a partition
  // table, whatever somebody has made of the disk since. Nobody writes over that unasked.
  bool is_overwritten = false;
};

// What is wrong with its copies, for a person; empty: nothing.
std::string damage_of(const Luks2Header& header);

struct LuksHeader {
  std::optional<Luks1Header> luks1;
  std::optional<Luks2Header> luks2;

  uint32_t version() const { return luks1 ? 1 : 2; }
  const std::string& uuid() const { return luks1 ? luks1->uuid : luks2->binary.uuid; }
};

// kInvalid: there is no LUKS header. kCorrupt: there is none that is right. What it says of the
// disk may still be something that this program does not support.
Task<LuksHeader> read_header(const World& world, HeaderWindow window);

// kUnsupported, by name, where this program cannot open the volume. kCorrupt where a key slot in
// use lies behind the end of the window.
Result<VolumeFacts> supported_facts(const World& world, const HeaderWindow& window,
                                    const LuksHeader& header);

// kDenied, with the command that repairs it, where is_overwritten.
Result<void> check_not_overwritten(const World& world, const HeaderWindow& window,
                                   const LuksHeader& header);

// What a disk that does not begin with a LUKS header has left of one: its second copy. Nothing
// where that cannot be read, whatever the reason.
Task<FormatRemains> find_remains(const World& world, StorageAccess& storage);

// Logs which copy is damaged or older, where one is, for those who must not repair it.
void warn_of_damage(const World& world, const HeaderWindow& window, const LuksHeader& header);

// Brings the copy that is damaged or older up to the right one, durably, and logs that. Does
// nothing where both are right. Whatever is_overwritten says: that is for the caller to ask.
Task<void> repair_header(const World& world, HeaderWindow window, LuksHeader& header);

// Before a change: both copies are right afterwards. kUnsupported, kCorrupt, kDenied as above.
Task<VolumeFacts> ready_for_change(const World& world, HeaderWindow window, LuksHeader& header);

// The changed header to the disk: for LUKS2 with the next sequence number, both copies one after
// the other, durable in the end; `json` has been changed, and metadata is read from it again. The
// copies are both right before (repair_header).
Task<void> write_luks2_header(const World& world, HeaderWindow window, Luks2Header& header);

// For LUKS1: `parts` of the encoded header, durable in the end.
Task<void> write_luks1_header(const World& world, HeaderWindow window, const Luks1Header& header);

}  // namespace ringdisk::luks
