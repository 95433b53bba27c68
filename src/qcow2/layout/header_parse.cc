// SPDX-License-Identifier: Apache-2.0
// Reading a header. Fields are taken first and judged afterwards, each judgement with a sentence
// for the user.
#include <algorithm>

#include "base/diagnostics.h"
#include "base/endian.h"
#include "base/span_reader.h"
#include "qcow2/layout/header.h"
#include "qcow2/layout/l2_entry.h"

namespace ringdisk::qcow2 {
namespace {

// Parses one header; lives for the length of parse_header.
class HeaderParser {
 public:
  HeaderParser(Bytes bytes, Diagnostics& diagnostics, uint32_t node)
      : bytes_(bytes), diagnostics_(diagnostics), node_(node) {}

  Result<Header> parse();

 private:
  Result<void> take_fields();
  Result<void> take_version3_fields(SpanReader& reader);
  Result<void> take_additional_fields();
  Result<void> judge_sizes() const;
  Result<void> judge_tables() const;
  Result<void> judge_place(const char* table, HostOffset at) const;
  Result<void> take_extensions();
  Result<void> take_backing_name();
  Result<void> judge_encryption() const;
  Error refuse(ErrorKind kind, std::string why) const {
    return diagnostics_.explain(Error::of(kind, "open"), node_, std::move(why));
  }
  Error refuse(std::string why) const { return refuse(ErrorKind::kCorrupt, std::move(why)); }

  Bytes bytes_;
  Diagnostics& diagnostics_;
  const uint32_t node_;
  Header header_;
  uint64_t backing_offset_ = 0;
  uint32_t backing_length_ = 0;
};

Result<Header> HeaderParser::parse() {
  RETURN_IF_ERROR(take_fields());
  RETURN_IF_ERROR(judge_sizes());
  RETURN_IF_ERROR(take_additional_fields());
  RETURN_IF_ERROR(judge_tables());
  RETURN_IF_ERROR(take_extensions());
  RETURN_IF_ERROR(take_backing_name());
  RETURN_IF_ERROR(judge_encryption());
  return std::move(header_);
}

Result<void> HeaderParser::take_fields() {
  SpanReader reader(bytes_);
  uint32_t magic = reader.be32();
  header_.version = reader.be32();
  backing_offset_ = reader.be64();
  backing_length_ = reader.be32();
  header_.cluster_bits = reader.be32();
  header_.size = ByteCount(reader.be64());
  uint32_t encryption = reader.be32();
  header_.l1_size = reader.be32();
  header_.l1_table = HostOffset(reader.be64());
  header_.refcount_table = HostOffset(reader.be64());
  header_.refcount_table_clusters = reader.be32();
  header_.snapshot_count = reader.be32();
  header_.snapshot_table = HostOffset(reader.be64());
  if (!reader.ok()) return refuse("the file is too short to be a qcow2 image");
  if (magic != kMagic) return refuse(ErrorKind::kInvalid, "not a qcow2 image");
  if (header_.version != 2 && header_.version != 3) {
    return refuse(ErrorKind::kUnsupported,
                  "qcow2 version " + std::to_string(header_.version) + " is not known");
  }
  if (encryption > 2) {
    return refuse(ErrorKind::kUnsupported,
                  "encryption method " + std::to_string(encryption) + " is not known");
  }
  header_.encryption = static_cast<Encryption>(encryption);
  if (header_.version == 3) return take_version3_fields(reader);
  header_.header_length = kVersion2HeaderBytes;
  return {};
}

Result<void> HeaderParser::take_version3_fields(SpanReader& reader) {
  header_.incompatible_features = reader.be64();
  header_.compatible_features = reader.be64();
  header_.autoclear_features = reader.be64();
  header_.refcount_order = reader.be32();
  header_.header_length = reader.be32();
  if (!reader.ok()) return refuse("the file is too short to be a qcow2 image of version 3");
  return {};
}

Result<void> HeaderParser::judge_sizes() const {
  const uint32_t bits = header_.cluster_bits;
  if (bits < limits::kQcow2ClusterBitsMin || bits > limits::kQcow2ClusterBitsMax) {
    return refuse("a cluster size of 2^" + std::to_string(bits) +
                  " bytes; 512 bytes to 2 MiB are possible");
  }
  if (header_.refcount_order > kRefcountOrderMax) {
    return refuse("a refcount width of 2^" + std::to_string(header_.refcount_order) +
                  " bits; at most 64 bits are possible");
  }
  if (header_.has_extended_l2() && bits < kExtendedClusterBitsMin) {
    return refuse("extended L2 entries with a cluster size of 2^" + std::to_string(bits) +
                  " bytes; they need 16 KiB at least");
  }
  const uint64_t front = std::min<uint64_t>(uint64_t{1} << bits, bytes_.size());
  const uint32_t length = header_.header_length;
  bool fits = header_.version == 2 || (length >= kVersion3HeaderBytes && length % 8 == 0);
  if (!fits || length > front) {
    return refuse("a header of " + std::to_string(length) + " bytes");
  }
  return {};
}

// Behind byte 104: the compression type, then what nobody knows yet.
Result<void> HeaderParser::take_additional_fields() {
  if (header_.header_length <= kVersion3HeaderBytes) {
    if ((header_.incompatible_features & kIncompatibleCompression) == 0) return {};
    return refuse("the compression feature is set but the header has no compression type");
  }
  SpanReader reader(bytes_.first(header_.header_length).subspan(kVersion3HeaderBytes));
  uint8_t type = reader.u8();
  Bytes rest = reader.bytes(reader.left());
  header_.unknown_fields.assign(rest.begin(), rest.end());
  const bool is_flagged = (header_.incompatible_features & kIncompatibleCompression) != 0;
  if (is_flagged != (type != 0)) {
    return refuse("the compression feature and the compression type contradict each other");
  }
  if (type > 1) {
    return refuse(ErrorKind::kUnsupported,
                  "compression type " + std::to_string(type) + " is not known");
  }
  header_.compression = static_cast<Compression>(type);
  return {};
}

Result<void> HeaderParser::judge_tables() const {
  const Geometry geometry = header_.geometry();
  const uint64_t cluster = geometry.cluster_size();
  if (header_.size.value() > kOffsetMax - cluster) {
    return refuse("a virtual size of " + std::to_string(header_.size.value()) + " bytes");
  }
  if (uint64_t{header_.l1_size} * kEntryBytes > limits::kQcow2L1BytesMax) {
    return refuse("an L1 table of " + std::to_string(header_.l1_size) + " entries");
  }
  if (header_.l1_size < geometry.l1_entries_for(header_.size)) {
    return refuse("an L1 table of " + std::to_string(header_.l1_size) +
                  " entries, too small for a virtual size of " +
                  std::to_string(header_.size.value()) + " bytes");
  }
  if (header_.refcount_table_clusters > limits::kQcow2RefcountTableBytesMax / cluster) {
    return refuse("a refcount table of " + std::to_string(header_.refcount_table_clusters) +
                  " clusters");
  }
  if (header_.snapshot_count > limits::kQcow2SnapshotsMax) {
    return refuse("a table of " + std::to_string(header_.snapshot_count) + " snapshots");
  }
  RETURN_IF_ERROR(judge_place("L1 table", header_.l1_table));
  RETURN_IF_ERROR(judge_place("refcount table", header_.refcount_table));
  RETURN_IF_ERROR(judge_place("snapshot table", header_.snapshot_table));
  return {};
}

Result<void> HeaderParser::judge_place(const char* table, HostOffset at) const {
  const std::string place = std::string("the ") + table + " at byte " + std::to_string(at.value());
  if (!at.is_aligned(uint64_t{1} << header_.cluster_bits)) {
    return refuse(place + ", which is not the start of a cluster");
  }
  if (at.value() >= kHostEnd) return refuse(place + " goes beyond what a file can hold");
  return {};
}

Result<void> HeaderParser::take_extensions() {
  const uint64_t cluster = uint64_t{1} << header_.cluster_bits;
  uint64_t end = std::min<uint64_t>(cluster, bytes_.size());
  if (backing_offset_ > header_.header_length) end = std::min(end, backing_offset_);
  header_.end = header_.header_length;
  SpanReader reader(bytes_.first(end).subspan(header_.header_length));
  while (reader.left() >= 8) {
    auto type = static_cast<ExtensionType>(reader.be32());
    uint32_t length = reader.be32();
    header_.end = header_.header_length + reader.position();
    if (type == ExtensionType::kEnd) break;
    const uint64_t place = header_.end;
    Bytes content = reader.bytes(length);
    if (!reader.ok()) return refuse("a header extension that goes beyond the header's cluster");
    reader.skip(std::min<size_t>((8 - length % 8) % 8, reader.left()));
    header_.end = header_.header_length + reader.position();
    if (type == ExtensionType::kFiller) continue;
    if (header_.extensions.size() == limits::kQcow2HeaderExtensionsMax) {
      return refuse("more than " + std::to_string(limits::kQcow2HeaderExtensionsMax) +
                    " header extensions");
    }
    header_.extensions.push_back(
        {type, std::vector<std::byte>(content.begin(), content.end()), place});
    if (type == ExtensionType::kBackingFormat) {
      const std::string_view name = as_text(content);
      header_.backing_format = name.substr(0, name.find('\0'));  // some pad it
    }
  }
  return {};
}

Result<void> HeaderParser::take_backing_name() {
  if (backing_offset_ == 0) return {};
  const uint64_t cluster = uint64_t{1} << header_.cluster_bits;
  const uint64_t end = std::min<uint64_t>(cluster, bytes_.size());
  if (backing_length_ > limits::kQcow2BackingNameBytesMax || backing_offset_ > end ||
      backing_length_ > end - backing_offset_ || backing_offset_ < header_.header_length) {
    return refuse("the name of the backing file lies outside of the header's cluster");
  }
  header_.backing_name = as_text(bytes_.subspan(backing_offset_, backing_length_));
  if (header_.backing_name.find('\0') != std::string::npos) {
    return refuse("the name of the backing file holds a zero byte");
  }
  header_.has_backing = !header_.backing_name.empty();
  header_.end = std::max(header_.end, backing_offset_ + backing_length_);
  return {};
}

Result<void> HeaderParser::judge_encryption() const {
  if (header_.encryption != Encryption::kLuks) return {};
  const std::optional<HostRange> place = header_.encryption_header();
  if (!place) return refuse("the image is encrypted but names no encryption header");
  const uint64_t cluster = uint64_t{1} << header_.cluster_bits;
  const bool is_right = place->offset.is_aligned(cluster) && place->offset.value() != 0 &&
                        place->length.value() <= kEncryptionHeaderBytesMax &&
                        !place->length.is_zero() && place->offset.value() <= kOffsetMax;
  if (is_right) return {};
  return refuse("an encryption header of " + std::to_string(place->length.value()) +
                " bytes at byte " + std::to_string(place->offset.value()));
}

}  // namespace

bool looks_like_qcow2(Bytes first_bytes) {
  if (first_bytes.size() < 8 || load_be32(&first_bytes[0]) != kMagic) return false;
  uint32_t version = load_be32(&first_bytes[4]);
  return version == 2 || version == 3;
}

Result<Header> parse_header(Bytes first_bytes, Diagnostics& diagnostics, uint32_t node) {
  return HeaderParser(first_bytes, diagnostics, node).parse();
}

std::string Header::data_file_name() const {
  const HeaderExtension* name = find_extension(ExtensionType::kDataFileName);
  return name ? std::string(as_text(name->content)) : std::string();
}

std::optional<HostRange> Header::encryption_header() const {
  const HeaderExtension* found = find_extension(ExtensionType::kEncryptionHeader);
  if (encryption != Encryption::kLuks || !found) return std::nullopt;
  SpanReader reader(found->content);
  const HostOffset at(reader.be64());
  const ByteCount length(reader.be64());
  if (!reader.ok() || reader.left() != 0) return std::nullopt;
  return HostRange(at, length);
}

const HeaderExtension* Header::find_extension(ExtensionType type) const {
  auto found = std::find_if(extensions.begin(), extensions.end(),
                            [type](const HeaderExtension& one) { return one.type == type; });
  return found == extensions.end() ? nullptr : &*found;
}

}  // namespace ringdisk::qcow2
