// SPDX-License-Identifier: Apache-2.0
// The header of an image and its extensions, parsed and encoded (format specification, "Header",
// "Header extensions"). Pure. Untrusted: every number is bounded by base/limits.h and, in
// check_places, by the file's size, before anything is allocated or read by it.
//
//   | 72 bytes, version 2 | 32 more, version 3 | additional fields | extensions … end mark |
//   backing name | … cluster end
//     0                     72                   104                 header_length
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/limits.h"
#include "base/result.h"
#include "base/units.h"
#include "qcow2/layout/geometry.h"

namespace ringdisk {
class Diagnostics;
}

namespace ringdisk::qcow2 {

inline constexpr uint32_t kMagic = 0x514649fb;  // "QFI\xfb"
inline constexpr uint32_t kVersion2HeaderBytes = 72;
inline constexpr uint32_t kVersion3HeaderBytes = 104;
// Enough of the file to hold any header with its extensions and backing name: the first cluster, or
// this much of it.
inline constexpr uint32_t kHeaderBytesMax = 64 * 1024;

// Where fields lie that are changed in place, and how long they are.
inline constexpr uint64_t kDiskFieldsAt =
    24;  // size (8), encryption (4), L1 size (4), L1 table (8)
// LUKS1 headers have 2 MiB with the longest keys there are; others may have more slots.
inline constexpr uint64_t kEncryptionHeaderBytesMax = 64 * limits::kMiB;
inline constexpr uint64_t kRefcountTableFieldsAt = 48;  // offset (8 bytes), clusters (4 bytes)
inline constexpr uint64_t kIncompatibleFeaturesAt = 72;
inline constexpr uint64_t kAutoclearFeaturesAt = 88;

// Bits of the feature fields.
inline constexpr uint64_t kIncompatibleDirty = 1 << 0;
inline constexpr uint64_t kIncompatibleCorrupt = 1 << 1;
inline constexpr uint64_t kIncompatibleDataFile = 1 << 2;
inline constexpr uint64_t kIncompatibleCompression = 1 << 3;
inline constexpr uint64_t kIncompatibleExtendedL2 = 1 << 4;
inline constexpr uint64_t kIncompatibleKnown = 0x1f;
inline constexpr uint64_t kCompatibleLazyRefcounts = 1 << 0;
inline constexpr uint64_t kAutoclearBitmaps = 1 << 0;
inline constexpr uint64_t kAutoclearRawDataFile = 1 << 1;

enum class Encryption : uint32_t { kNone = 0, kAes = 1, kLuks = 2 };
enum class Compression : uint8_t { kDeflate = 0, kZstd = 1 };

enum class ExtensionType : uint32_t {
  kEnd = 0,
  kBackingFormat = 0xe2792aca,
  kFeatureNames = 0x6803f857,
  kBitmaps = 0x23852875,
  kEncryptionHeader = 0x0537be77,
  kDataFileName = 0x44415441,
  // Ours: covers what lies between the fields and the extensions while a header is being rewritten
  // (header_rewrite.h). Others keep it as they keep what they do not know; here it is dropped.
  kFiller = 0x72646670,
};

// An extension as it stood, known or not, so that a rewritten header keeps it.
struct HeaderExtension {
  ExtensionType type = ExtensionType::kEnd;
  std::vector<std::byte> content;
  uint64_t place = 0;  // where its content began in what was parsed; not encoded
};

struct Header {
  uint32_t version = 3;
  uint32_t cluster_bits = 16;
  uint32_t refcount_order = 4;
  ByteCount size;
  Encryption encryption = Encryption::kNone;
  uint32_t l1_size = 0;  // entries
  HostOffset l1_table;
  HostOffset refcount_table;
  uint32_t refcount_table_clusters = 0;
  uint32_t snapshot_count = 0;
  HostOffset snapshot_table;
  uint64_t incompatible_features = 0;
  uint64_t compatible_features = 0;
  uint64_t autoclear_features = 0;
  uint32_t header_length = kVersion3HeaderBytes;
  Compression compression = Compression::kDeflate;
  std::vector<std::byte> unknown_fields;  // of the header, behind those above, up to header_length
  std::vector<HeaderExtension> extensions;
  bool has_backing = false;
  std::string backing_name;
  std::string backing_format;  // empty: not recorded
  uint64_t end = 0;            // byte behind all that parse_header took

  bool has_extended_l2() const { return (incompatible_features & kIncompatibleExtendedL2) != 0; }
  Geometry geometry() const { return Geometry(cluster_bits, refcount_order, has_extended_l2()); }
  bool is_dirty() const { return (incompatible_features & kIncompatibleDirty) != 0; }
  bool has_data_file() const { return (incompatible_features & kIncompatibleDataFile) != 0; }
  bool data_file_is_raw() const {
    return has_data_file() && (autoclear_features & kAutoclearRawDataFile) != 0;
  }
  std::string data_file_name() const;  // empty: not recorded
  bool is_encrypted() const { return encryption != Encryption::kNone; }
  // Where the encryption header of a LUKS image lies; parse_header has judged it in itself.
  std::optional<HostRange> encryption_header() const;
  bool is_corrupt() const { return (incompatible_features & kIncompatibleCorrupt) != 0; }
  const HeaderExtension* find_extension(ExtensionType type) const;
};

// Whether `first_bytes` of a file are those of a qcow2 image of a version known here.
bool looks_like_qcow2(Bytes first_bytes);

// Parses what stands in `first_bytes`, the front of the file, at least 104 bytes of it or all.
// Fields are right in themselves afterwards; features this program does not know, or knows and
// cannot do, are found by check_features. Errors carry a note in `diagnostics` for node `node`.
Result<Header> parse_header(Bytes first_bytes, Diagnostics& diagnostics, uint32_t node);

// kUnsupported, naming the feature (by the image's own table where it has one), if the image cannot
// even be read.
Result<void> check_features(const Header& header, Diagnostics& diagnostics, uint32_t node);

// kCorrupt for an image without a refcount table: its disk can be told, but not where it may grow.
Result<void> check_has_refcounts(const Header& header, Diagnostics& diagnostics, uint32_t node);

// Whether all tables lie within a file of `file_size` bytes, and none on another or on the header.
Result<void> check_places(const Header& header, ByteCount file_size, Diagnostics& diagnostics,
                          uint32_t node);

// The header with extensions and backing name, as it stands at the start of a file; at most one
// cluster, kLimit if it does not fit. The header_length field follows from the version and the
// unknown fields. With `extensions_at`, a multiple of 8 behind the fields, extensions and name lie
// there, behind a filler.
Result<std::vector<std::byte>> encode_header(const Header& header, uint64_t extensions_at = 0);

// The fields at kDiskFieldsAt of the image with `header`, for another disk.
std::vector<std::byte> encode_disk_fields(const Header& header, ByteCount size, uint64_t l1_entries,
                                          HostOffset l1_table);

// Changes of a header that keep its fields and extensions in step.
void set_extension(Header& header, ExtensionType type, Bytes content);
void remove_extension(Header& header, ExtensionType type);
void set_encryption_header(Header& header, HostRange place);
// An empty name: no backing image. An empty format: none recorded.
void set_backing(Header& header, std::string name, std::string format);
// The names of the features known here, for other programs to say what they cannot do. Nothing
// where there are such names already, in version 2, and where they do not fit.
void add_feature_names(Header& header);

// The name of a feature bit: from the image's feature name table, else the specification's, else
// "bit N".
enum class FeatureSet : uint8_t { kIncompatible = 0, kCompatible = 1, kAutoclear = 2 };
std::string name_of_feature(const Header& header, FeatureSet set, uint32_t bit);
// Names of all bits that are set in `bits`, in one line: "'dirty bit', 'bit 7'".
std::string names_of_features(const Header& header, FeatureSet set, uint64_t bits);
// The content of a feature name table extension for the features known here.
std::vector<std::byte> feature_name_table();

}  // namespace ringdisk::qcow2
