// SPDX-License-Identifier: Apache-2.0
// What the JSON of a LUKS2 header says (LUKS2 On-Disk Format Specification 1.1, section 3), checked
// and cross-checked: numbers within limits, areas inside the key slot area and not in one another,
// digests, key slots, segments and tokens that name only each other. Fields that this program does
// not know stay in the tree (luks/json.h) that was read.
//
//   config    json_size, keyslots_size, flags, requirements
//   keyslots  "0"…"31": how a passphrase opens the area in which the volume key lies
//   segments  "0": where the encrypted data lies, and how it is enciphered
//   digests   "0": which key slots give the right key, and to which segments it belongs
//   tokens    notes of other programs about key slots
//
// Values; pure.
#pragma once

#include <string>
#include <vector>

#include "luks/facts.h"
#include "luks/json.h"
#include "luks/luks2_binary.h"

namespace ringdisk::luks {

inline constexpr uint32_t kLuks2ObjectsMax = 32;  // of a kind; numbers are below it
inline constexpr uint64_t kLuks2SlotAreaBytesMax = 128 << 20;
inline constexpr uint64_t kLuks2AreaAlignment = 4096;

// A key slot as recorded, or only its place where it needs what this program does not have: such
// a one is kept and told of, and the others open.
struct Luks2Slot {
  std::string type;
  KeySlot slot;
  std::string unusable;  // why this program cannot open it
  bool is_usable() const { return unusable.empty(); }
};

struct Luks2Segment {
  uint32_t number = 0;
  std::string type;
  std::string encryption;  // any text: whether it is a cipher is asked by who opens
  uint64_t offset = 0, iv_offset = 0;
  std::optional<uint64_t> size;  // nullopt: to the end
  uint32_t sector_size = 512;
  bool has_integrity = false;
  std::vector<std::string> flags;
};

struct Luks2Digest {
  std::string type;
  VolumeDigest digest;
  std::vector<uint32_t> slots, segments;
  std::string unusable;
  bool is_usable() const { return unusable.empty(); }
};

struct Luks2Token {
  uint32_t number = 0;
  std::string type;
  std::vector<uint32_t> slots;
};

struct Luks2Metadata {
  std::vector<Luks2Slot> slots;  // all by number
  std::vector<Luks2Segment> segments;
  std::vector<Luks2Digest> digests;
  std::vector<Luks2Token> tokens;
  uint64_t slot_area_bytes = 0;  // behind both copies of the header
  std::vector<std::string> flags, requirements;
};

// `header_bytes` is that of the binary front. kCorrupt, with what is wrong. Names of algorithms
// that are not known are none of it: they make unusable what they are part of.
Result<Luks2Metadata> read_luks2_metadata(const Json& json, uint64_t header_bytes,
                                          const Refusal& refusal);

// What this program would do wrong with it: unknown requirements, re-encryption that is under way,
// several segments, data that is not "crypt", unknown ciphers, integrity. kUnsupported, by name;
// kCorrupt where the data would end beyond what a file can have. Everything that opens or changes a
// volume asks; a dump does not.
Result<void> check_luks2_supported(const Luks2Metadata& metadata, const Refusal& refusal);

// Of a header that is supported.
VolumeFacts facts_of(const Luks2Binary& binary, const Luks2Metadata& metadata);

}  // namespace ringdisk::luks
