// SPDX-License-Identifier: Apache-2.0
// Writing a header: what parse_header reads, in the same places.
#include <algorithm>

#include "base/endian.h"
#include "qcow2/layout/header.h"

namespace ringdisk::qcow2 {
namespace {

// Appends fields to a growing header.
class HeaderWriter {
 public:
  void be32(uint32_t value) { store_be32(grow(4), value); }
  void be64(uint64_t value) { store_be64(grow(8), value); }
  void u8(uint8_t value) { *grow(1) = static_cast<std::byte>(value); }
  void bytes(Bytes content) { bytes_.insert(bytes_.end(), content.begin(), content.end()); }
  void zeros(size_t count) { bytes_.resize(bytes_.size() + count); }
  void pad_to_8() { bytes_.resize((bytes_.size() + 7) / 8 * 8); }
  size_t size() const { return bytes_.size(); }
  std::vector<std::byte> take() { return std::move(bytes_); }
  std::byte* at(size_t offset) { return &bytes_[offset]; }

 private:
  std::byte* grow(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return &bytes_[bytes_.size() - count];
  }
  std::vector<std::byte> bytes_;
};

void write_version2_fields(HeaderWriter& writer, const Header& header) {
  writer.be32(kMagic);
  writer.be32(header.version);
  writer.be64(0);  // where the backing name lies: filled in at the end
  writer.be32(static_cast<uint32_t>(header.backing_name.size()));
  writer.be32(header.cluster_bits);
  writer.be64(header.size.value());
  writer.be32(static_cast<uint32_t>(header.encryption));
  writer.be32(header.l1_size);
  writer.be64(header.l1_table.value());
  writer.be64(header.refcount_table.value());
  writer.be32(header.refcount_table_clusters);
  writer.be32(header.snapshot_count);
  writer.be64(header.snapshot_table.value());
}

void write_version3_fields(HeaderWriter& writer, const Header& header) {
  const bool has_more =
      header.compression != Compression::kDeflate || !header.unknown_fields.empty();
  // The compression type and seven bytes of padding, or what stood in their place.
  const size_t more =
      has_more ? (1 + std::max<size_t>(header.unknown_fields.size(), 7) + 7) / 8 * 8 : 0;
  writer.be64(header.incompatible_features);
  writer.be64(header.compatible_features);
  writer.be64(header.autoclear_features);
  writer.be32(header.refcount_order);
  writer.be32(static_cast<uint32_t>(kVersion3HeaderBytes + more));
  if (!has_more) return;
  writer.u8(static_cast<uint8_t>(header.compression));
  std::vector<std::byte> fields = header.unknown_fields;
  fields.resize(more - 1);
  writer.bytes(fields);
}

Result<void> write_filler(HeaderWriter& writer, uint64_t up_to) {
  constexpr size_t kExtensionHeadBytes = 8;
  if (up_to < writer.size() + kExtensionHeadBytes) {
    return Error::of(ErrorKind::kLimit, "write header");
  }
  const uint64_t length = up_to - writer.size() - kExtensionHeadBytes;
  writer.be32(static_cast<uint32_t>(ExtensionType::kFiller));
  writer.be32(static_cast<uint32_t>(length));
  writer.zeros(length);
  return {};
}

void write_extensions(HeaderWriter& writer, const Header& header) {
  for (const HeaderExtension& extension : header.extensions) {
    writer.be32(static_cast<uint32_t>(extension.type));
    writer.be32(static_cast<uint32_t>(extension.content.size()));
    writer.bytes(extension.content);
    writer.pad_to_8();
  }
  writer.be32(static_cast<uint32_t>(ExtensionType::kEnd));
  writer.be32(0);
}

}  // namespace

Result<std::vector<std::byte>> encode_header(const Header& header, uint64_t extensions_at) {
  HeaderWriter writer;
  write_version2_fields(writer, header);
  if (header.version >= 3) write_version3_fields(writer, header);
  if (extensions_at != 0) RETURN_IF_ERROR(write_filler(writer, extensions_at));
  write_extensions(writer, header);
  if (!header.backing_name.empty()) {
    store_be64(writer.at(8), writer.size());
    writer.bytes(as_bytes(header.backing_name));
  }
  const uint64_t cluster = uint64_t{1} << header.cluster_bits;
  if (header.backing_name.size() > limits::kQcow2BackingNameBytesMax || writer.size() > cluster) {
    return Error::of(ErrorKind::kLimit, "write header");
  }
  return writer.take();
}

std::vector<std::byte> encode_disk_fields(const Header& header, ByteCount size, uint64_t l1_entries,
                                          HostOffset l1_table) {
  std::vector<std::byte> fields(24);
  store_be64(&fields[0], size.value());
  store_be32(&fields[8], static_cast<uint32_t>(header.encryption));
  store_be32(&fields[12], static_cast<uint32_t>(l1_entries));
  store_be64(&fields[16], l1_table.value());
  return fields;
}

void remove_extension(Header& header, ExtensionType type) {
  std::erase_if(header.extensions, [type](const HeaderExtension& one) { return one.type == type; });
}

// In its place where there is one: the order of the others stays.
void set_extension(Header& header, ExtensionType type, Bytes content) {
  std::vector<std::byte> bytes(content.begin(), content.end());
  for (HeaderExtension& extension : header.extensions) {
    if (extension.type != type) continue;
    extension.content = std::move(bytes);
    return;
  }
  header.extensions.push_back({type, std::move(bytes)});
}

void set_encryption_header(Header& header, HostRange place) {
  std::vector<std::byte> content(16);
  store_be64(&content[0], place.offset.value());
  store_be64(&content[8], place.length.value());
  header.encryption = Encryption::kLuks;
  set_extension(header, ExtensionType::kEncryptionHeader, content);
}

void set_backing(Header& header, std::string name, std::string format) {
  if (name.empty()) format.clear();
  header.has_backing = !name.empty();
  header.backing_name = std::move(name);
  header.backing_format = std::move(format);
  if (header.backing_format.empty()) {
    remove_extension(header, ExtensionType::kBackingFormat);
  } else {
    set_extension(header, ExtensionType::kBackingFormat, as_bytes(header.backing_format));
  }
}

void add_feature_names(Header& header) {
  if (header.version < 3 || header.find_extension(ExtensionType::kFeatureNames)) return;
  header.extensions.push_back({ExtensionType::kFeatureNames, feature_name_table()});
  if (!encode_header(header).ok()) header.extensions.pop_back();
}

}  // namespace ringdisk::qcow2
