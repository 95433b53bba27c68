// SPDX-License-Identifier: Apache-2.0
// Every layout against bytes written out by hand after the protocol's document, and what is
// refused.
#include "nbd/wire.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <string>

#include "base/limits.h"
#include "nbd/test_client.h"

namespace ringdisk::nbd {
namespace {

std::string text_of(Bytes bytes) { return std::string(as_text(bytes)); }

std::string request_bytes(uint16_t type, uint16_t flags, uint64_t offset, uint32_t length) {
  return be32(0x25609513) + be16(flags) + be16(type) + be64(77) + be64(offset) + be32(length);
}

RequestHeader parsed(uint16_t type, uint16_t flags, uint64_t offset, uint32_t length) {
  Result<RequestHeader> header =
      parse_request_header(as_bytes(request_bytes(type, flags, offset, length)));
  return header.value();
}

TEST(WireTest, ARequestIsTakenApart) {
  RequestHeader header = parsed(6, 0x13, 0x0102030405060708, 0xfffffffe);
  EXPECT_EQ(header.command, Command::kWriteZeroes);
  EXPECT_EQ(header.flags, 0x13);
  EXPECT_EQ(header.cookie, 77u);
  EXPECT_EQ(header.offset, 0x0102030405060708u);
  EXPECT_EQ(header.length, 0xfffffffeu);
}

TEST(WireTest, AnotherMagicOrTooFewBytesAreNoRequest) {
  std::string bytes = request_bytes(0, 0, 0, 512);
  for (size_t length = 0; length < bytes.size(); ++length) {
    EXPECT_FALSE(parse_request_header(as_bytes(bytes.substr(0, length))).ok());
  }
  bytes[3] ^= 1;
  EXPECT_FALSE(parse_request_header(as_bytes(bytes)).ok());
}

TEST(WireTest, ErrorsBecomeTheProtocolsOwn) {
  struct Case {
    int errno_value;
    WireError error;
  };
  for (Case each : {Case{EPERM, WireError::kPermission}, Case{EROFS, WireError::kPermission},
                    Case{ENOMEM, WireError::kNoMemory}, Case{EINVAL, WireError::kInvalid},
                    Case{ENOSPC, WireError::kNoSpace}, Case{EDQUOT, WireError::kNoSpace},
                    Case{EFBIG, WireError::kNoSpace}, Case{EIO, WireError::kIo},
                    Case{ENODEV, WireError::kIo}, Case{ESHUTDOWN, WireError::kShutdown}}) {
    EXPECT_EQ(wire_error_of(Error::from_errno(each.errno_value, "x"), false), each.error);
    EXPECT_EQ(wire_error_of(Error::from_errno(each.errno_value, "x"), true), each.error);
  }
  Error unsupported = Error::of(ErrorKind::kUnsupported, "zero fast");
  EXPECT_EQ(wire_error_of(unsupported, true), WireError::kNotSupported);
  EXPECT_NE(wire_error_of(unsupported, false), WireError::kNotSupported);
}

TEST(WireTest, RepliesLieAsTheDocumentDrawsThem) {
  std::byte room[64];
  EXPECT_EQ(text_of(encode_simple_reply(room, 5, WireError::kNoSpace)),
            be32(0x67446698) + be32(28) + be64(5));
  EXPECT_EQ(text_of(encode_none_chunk(room, 5)),
            be32(0x668e33ef) + be16(1) + be16(0) + be64(5) + be32(0));
  EXPECT_EQ(text_of(encode_offset_data_header(room, 5, 4096, 512, true)),
            be32(0x668e33ef) + be16(1) + be16(1) + be64(5) + be32(520) + be64(4096));
  EXPECT_EQ(text_of(encode_offset_hole(room, 5, 4096, 512, false)),
            be32(0x668e33ef) + be16(0) + be16(2) + be64(5) + be32(12) + be64(4096) + be32(512));
  EXPECT_EQ(text_of(encode_error_chunk_header(room, 5, WireError::kIo, 3)),
            be32(0x668e33ef) + be16(1) + be16(0x8001) + be64(5) + be32(9) + be32(5) + be16(3));
  EXPECT_EQ(text_of(encode_block_status_header(room, 5, 1, 2, true)),
            be32(0x668e33ef) + be16(1) + be16(5) + be64(5) + be32(20) + be32(1));
  EXPECT_EQ(text_of(encode_block_descriptor(room, 65536, 3)), be32(65536) + be32(3));
}

TEST(WireTest, HandshakeRepliesLieAsTheDocumentDrawsThem) {
  std::byte room[256];
  EXPECT_EQ(text_of(encode_greeting(room)), std::string("NBDMAGICIHAVEOPT") + be16(3));
  EXPECT_EQ(text_of(encode_option_reply(room, Option::kGo, OptionReply::kInfo, 12)),
            be64(0x3e889045565a9) + be32(7) + be32(3) + be32(12));
  EXPECT_EQ(text_of(encode_export_name_reply(room, 99, 0x5, false)), be64(99) + be16(5));
  EXPECT_EQ(text_of(encode_export_name_reply(room, 99, 0x5, true)),
            be64(99) + be16(5) + std::string(124, '\0'));
  EXPECT_EQ(text_of(encode_info_export(room, 99, 5)), be16(0) + be64(99) + be16(5));
  EXPECT_EQ(text_of(encode_info_block_size(room, 1, 4096, 1 << 25)),
            be16(3) + be32(1) + be32(4096) + be32(1 << 25));
}

TEST(WireTest, AnExportRequestIsTakenApart) {
  std::string bytes = TestClient::info_request("disk", 3, 1, 99);
  Result<ExportRequest> request = parse_export_request(as_bytes(bytes));
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request.value().name, "disk");
  EXPECT_TRUE(request.value().wants_block_size);
  EXPECT_TRUE(request.value().wants_name);
  EXPECT_FALSE(request.value().wants_description);
}

TEST(WireTest, ExportRequestsWithLengthsThatLieAreRefused) {
  std::string right = TestClient::info_request("disk", 3);
  for (size_t length = 0; length < right.size(); ++length) {
    EXPECT_FALSE(parse_export_request(as_bytes(right.substr(0, length))).ok()) << length;
  }
  EXPECT_FALSE(parse_export_request(as_bytes(right + "x")).ok());
  EXPECT_FALSE(parse_export_request(as_bytes(be32(0xffffffff) + right.substr(4))).ok());
  std::string nul = TestClient::info_request(std::string("a\0b", 3));
  EXPECT_FALSE(parse_export_request(as_bytes(nul)).ok());
  std::string longest = TestClient::info_request(std::string(4096, 'x'));
  EXPECT_TRUE(parse_export_request(as_bytes(longest)).ok());
  std::string too_long = TestClient::info_request(std::string(4097, 'x'));
  EXPECT_FALSE(parse_export_request(as_bytes(too_long)).ok());
}

TEST(WireTest, MetadataQueriesAreTakenApartAndBounded) {
  std::string right = TestClient::meta_request("disk", "base:", "base:allocation");
  Result<MetaContextRequest> request = parse_meta_context_request(as_bytes(right));
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request.value().export_name, "disk");
  ASSERT_EQ(request.value().queries.size(), 2u);
  EXPECT_EQ(request.value().queries[1], "base:allocation");
  for (size_t length = 0; length < right.size(); ++length) {
    EXPECT_FALSE(parse_meta_context_request(as_bytes(right.substr(0, length))).ok()) << length;
  }
  std::string many = be32(0) + be32(0x10000000);
  Result<MetaContextRequest> refused = parse_meta_context_request(as_bytes(many));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().kind, ErrorKind::kLimit);
}

}  // namespace
}  // namespace ringdisk::nbd
