// SPDX-License-Identifier: Apache-2.0
// Field by field, in the order of the wire.
#include "nbd/wire.h"

#include <cerrno>
#include <optional>

#include "base/check.h"
#include "base/endian.h"
#include "base/limits.h"
#include "base/span_reader.h"

namespace ringdisk::nbd {
namespace {

// Fields one after another; the caller has made the room.
class SpanWriter {
 public:
  explicit SpanWriter(MutableBytes target) : target_(target) {}
  SpanWriter& be16(uint16_t value) {
    store_be16(take(2), value);
    return *this;
  }
  SpanWriter& be32(uint32_t value) {
    store_be32(take(4), value);
    return *this;
  }
  SpanWriter& be64(uint64_t value) {
    store_be64(take(8), value);
    return *this;
  }
  Bytes written() const { return target_.first(position_); }

 private:
  std::byte* take(size_t count) {
    CHECK_LE(count, target_.size() - position_);
    std::byte* at = target_.data() + position_;
    position_ += count;
    return at;
  }

  MutableBytes target_;
  size_t position_ = 0;
};

Error invalid(const char* operation) { return Error::of(ErrorKind::kInvalid, operation); }

// | length 4 | text |
std::optional<std::string_view> read_string(SpanReader& reader) {
  uint32_t length = reader.be32();
  if (!reader.ok() || length > reader.left()) return std::nullopt;
  return as_text(reader.bytes(length));
}

SpanWriter chunk_header(MutableBytes target, uint64_t cookie, ChunkType type, bool done,
                        size_t payload) {
  SpanWriter writer(target);
  writer.be32(kStructuredReplyMagic).be16(done ? kReplyDone : 0);
  writer.be16(static_cast<uint16_t>(type)).be64(cookie).be32(static_cast<uint32_t>(payload));
  return writer;
}

}  // namespace

bool is_protocol_string(std::string_view text) {
  return text.size() <= limits::kNbdNameBytesMax && text.find('\0') == std::string_view::npos;
}

Result<OptionHeader> parse_option_header(Bytes bytes) {
  SpanReader reader(bytes);
  bool is_option = reader.be64() == kOptionMagic;
  OptionHeader header;
  header.option = static_cast<Option>(reader.be32());
  header.length = reader.be32();
  if (!reader.ok() || !is_option) return Error::of(ErrorKind::kProtocol, "parse NBD option");
  return header;
}

Result<ExportRequest> parse_export_request(Bytes payload) {
  constexpr const char* kOperation = "parse NBD export request";
  SpanReader reader(payload);
  std::optional<std::string_view> name = read_string(reader);
  if (!name || !is_protocol_string(*name)) return invalid(kOperation);
  ExportRequest request;
  request.name = *name;
  uint32_t count = reader.be16();
  if (!reader.ok() || reader.left() != size_t{count} * 2) return invalid(kOperation);
  for (uint32_t i = 0; i < count; ++i) {
    auto wanted = static_cast<InfoType>(reader.be16());
    request.wants_name |= wanted == InfoType::kName;
    request.wants_description |= wanted == InfoType::kDescription;
    request.wants_block_size |= wanted == InfoType::kBlockSize;
  }
  return request;
}

Result<MetaContextRequest> parse_meta_context_request(Bytes payload) {
  constexpr const char* kOperation = "parse NBD metadata query";
  SpanReader reader(payload);
  std::optional<std::string_view> name = read_string(reader);
  if (!name || !is_protocol_string(*name)) return invalid(kOperation);
  uint32_t count = reader.be32();
  if (!reader.ok()) return invalid(kOperation);
  if (count > limits::kNbdMetaContextsMax) return Error::of(ErrorKind::kLimit, kOperation);
  MetaContextRequest request;
  request.export_name = *name;
  for (uint32_t i = 0; i < count; ++i) {
    std::optional<std::string_view> query = read_string(reader);
    if (!query || !is_protocol_string(*query)) return invalid(kOperation);
    request.queries.push_back(*query);
  }
  if (reader.left() != 0) return invalid(kOperation);
  return request;
}

Bytes encode_greeting(MutableBytes target) {
  SpanWriter writer(target);
  writer.be64(kMagic).be64(kOptionMagic).be16(kHandshakeFixedNewstyle | kHandshakeNoZeroes);
  return writer.written();
}

Bytes encode_option_reply(MutableBytes target, Option option, OptionReply type, size_t length) {
  SpanWriter writer(target);
  writer.be64(kOptionReplyMagic).be32(static_cast<uint32_t>(option));
  writer.be32(static_cast<uint32_t>(type)).be32(static_cast<uint32_t>(length));
  return writer.written();
}

Bytes encode_export_name_reply(MutableBytes target, uint64_t size, uint16_t flags, bool zeroes) {
  SpanWriter writer(target);
  writer.be64(size).be16(flags);
  size_t length = kExportNameReplyBytes;
  if (zeroes) {
    fill_zero(target.subspan(length, kExportNameZeroes));
    length += kExportNameZeroes;
  }
  return target.first(length);
}

Bytes encode_info_export(MutableBytes target, uint64_t size, uint16_t flags) {
  SpanWriter writer(target);
  writer.be16(static_cast<uint16_t>(InfoType::kExport)).be64(size).be16(flags);
  return writer.written();
}

Bytes encode_info_block_size(MutableBytes target, uint32_t minimum, uint32_t preferred,
                             uint32_t maximum) {
  SpanWriter writer(target);
  writer.be16(static_cast<uint16_t>(InfoType::kBlockSize));
  writer.be32(minimum).be32(preferred).be32(maximum);
  return writer.written();
}

Result<RequestHeader> parse_request_header(Bytes bytes) {
  SpanReader reader(bytes);
  bool is_request = reader.be32() == kRequestMagic;
  RequestHeader header;
  header.flags = reader.be16();
  header.command = static_cast<Command>(reader.be16());
  header.cookie = reader.be64();
  header.offset = reader.be64();
  header.length = reader.be32();
  if (!reader.ok() || !is_request) return Error::of(ErrorKind::kProtocol, "parse NBD request");
  return header;
}

WireError wire_error_of(const Error& error, bool fast_zero) {
  switch (error.errno_value) {
    case EPERM:
    case EACCES:
    case EROFS:
      return WireError::kPermission;
    case ENOMEM:
      return WireError::kNoMemory;
    case EINVAL:
      return WireError::kInvalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return WireError::kNoSpace;
    case EOPNOTSUPP:
      return fast_zero ? WireError::kNotSupported : WireError::kInvalid;
    case ESHUTDOWN:
    case ECANCELED:
      return WireError::kShutdown;
    default:
      break;
  }
  return WireError::kIo;
}

Bytes encode_simple_reply(MutableBytes target, uint64_t cookie, WireError error) {
  SpanWriter writer(target);
  writer.be32(kSimpleReplyMagic).be32(static_cast<uint32_t>(error)).be64(cookie);
  return writer.written();
}

Bytes encode_none_chunk(MutableBytes target, uint64_t cookie) {
  return chunk_header(target, cookie, ChunkType::kNone, true, 0).written();
}

Bytes encode_offset_data_header(MutableBytes target, uint64_t cookie, uint64_t offset,
                                uint32_t length, bool done) {
  SpanWriter writer =
      chunk_header(target, cookie, ChunkType::kOffsetData, done, size_t{length} + 8);
  return writer.be64(offset).written();
}

Bytes encode_offset_hole(MutableBytes target, uint64_t cookie, uint64_t offset, uint32_t length,
                         bool done) {
  SpanWriter writer = chunk_header(target, cookie, ChunkType::kOffsetHole, done, 12);
  return writer.be64(offset).be32(length).written();
}

Bytes encode_error_chunk_header(MutableBytes target, uint64_t cookie, WireError error,
                                size_t message_length) {
  CHECK_LE(message_length, size_t{limits::kNbdNameBytesMax});
  SpanWriter writer = chunk_header(target, cookie, ChunkType::kError, true, 6 + message_length);
  writer.be32(static_cast<uint32_t>(error)).be16(static_cast<uint16_t>(message_length));
  return writer.written();
}

Bytes encode_block_status_header(MutableBytes target, uint64_t cookie, uint32_t context_id,
                                 size_t descriptors, bool done) {
  SpanWriter writer = chunk_header(target, cookie, ChunkType::kBlockStatus, done,
                                   4 + descriptors * kBlockDescriptorBytes);
  return writer.be32(context_id).written();
}

Bytes encode_block_descriptor(MutableBytes target, uint32_t length, uint32_t flags) {
  SpanWriter writer(target);
  return writer.be32(length).be32(flags).written();
}

}  // namespace ringdisk::nbd
