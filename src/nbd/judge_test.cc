// SPDX-License-Identifier: Apache-2.0
// Every rule of every command, from both sides of its bound, and the line that says which it was.
#include "nbd/judge.h"

#include <gtest/gtest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "base/limits.h"
#include "nbd/test_client.h"

namespace ringdisk::nbd {
namespace {

RequestHeader parsed(uint16_t type, uint16_t flags, uint64_t offset, uint32_t length) {
  std::string bytes =
      be32(0x25609513) + be16(flags) + be16(type) + be64(77) + be64(offset) + be32(length);
  return parse_request_header(as_bytes(bytes)).value();
}

RequestTerms terms_of_disk(uint64_t size) {
  RequestTerms terms;
  terms.size = size;
  terms.structured_replies = true;
  terms.block_status = true;
  return terms;
}

std::vector<uint16_t> types(std::initializer_list<uint16_t> listed) { return listed; }

WireError answer_to(const RequestHeader& request, const RequestTerms& terms) {
  Verdict verdict = judge_request(request, terms);
  EXPECT_EQ(verdict.is_right(), verdict.error == WireError::kNone);
  return verdict.error;
}

std::string refusal(const RequestHeader& request, const RequestTerms& terms) {
  return describe_refusal(judge_request(request, terms).broken, request, terms);
}

TEST(JudgeTest, RequestsPastTheEndGetTheErrorTheProtocolNames) {
  RequestTerms terms = terms_of_disk(1 << 20);
  struct Case {
    uint16_t type;
    WireError error;
  };
  for (Case each :
       {Case{0, WireError::kInvalid}, Case{1, WireError::kNoSpace}, Case{4, WireError::kInvalid},
        Case{5, WireError::kInvalid}, Case{6, WireError::kNoSpace}, Case{7, WireError::kInvalid}}) {
    EXPECT_EQ(answer_to(parsed(each.type, 0, (1 << 20) - 512, 512), terms), WireError::kNone);
    EXPECT_EQ(answer_to(parsed(each.type, 0, (1 << 20) - 512, 513), terms), each.error);
    EXPECT_EQ(answer_to(parsed(each.type, 0, (1 << 20) + 1, 1), terms), each.error);
    EXPECT_EQ(answer_to(parsed(each.type, 0, ~uint64_t{0}, 4096), terms), each.error);
  }
}

TEST(JudgeTest, FlagsAreAcceptedOnlyWhereTheyMeanSomething) {
  RequestTerms terms = terms_of_disk(1 << 20);
  const uint16_t allowed[] = {0x05, 0x01, 0, 0x01, 0x01, 0x01, 0x13, 0x09};
  for (uint16_t type : types({0, 1, 3, 4, 5, 6, 7})) {
    uint32_t length = type == 3 ? 0 : 512;
    for (uint32_t bit = 0; bit < 16; ++bit) {
      auto flag = static_cast<uint16_t>(1 << bit);
      WireError expected = (allowed[type] & flag) ? WireError::kNone : WireError::kInvalid;
      EXPECT_EQ(answer_to(parsed(type, flag, 0, length), terms), expected)
          << "type " << type << ", flag " << flag;
    }
  }
  terms.structured_replies = false;
  EXPECT_EQ(answer_to(parsed(0, 0x04, 0, 512), terms), WireError::kInvalid);
}

TEST(JudgeTest, UnknownCommandsAndUnagreedBlockStatusAreInvalid) {
  RequestTerms terms = terms_of_disk(1 << 20);
  for (uint16_t type : types({8, 9, 255, 65535})) {
    EXPECT_EQ(answer_to(parsed(type, 0, 0, 512), terms), WireError::kInvalid);
  }
  terms.block_status = false;
  EXPECT_EQ(answer_to(parsed(7, 0, 0, 512), terms), WireError::kInvalid);
}

TEST(JudgeTest, AReadOnlyExportRefusesWhatWrites) {
  RequestTerms terms = terms_of_disk(1 << 20);
  terms.read_only = true;
  for (uint16_t type : types({1, 4, 6})) {
    EXPECT_EQ(answer_to(parsed(type, 0, 0, 512), terms), WireError::kPermission);
  }
  for (uint16_t type : types({0, 5, 7})) {
    EXPECT_EQ(answer_to(parsed(type, 0, 0, 512), terms), WireError::kNone);
  }
  EXPECT_EQ(answer_to(parsed(3, 0, 0, 0), terms), WireError::kNone);
}

TEST(JudgeTest, OnlyRequestsWithPayloadAreBoundInLength) {
  RequestTerms terms = terms_of_disk(uint64_t{1} << 40);
  uint32_t too_long = static_cast<uint32_t>(limits::kNbdRequestBytesMax) + 1;
  EXPECT_EQ(answer_to(parsed(0, 0, 0, too_long), terms), WireError::kOverflow);
  EXPECT_EQ(answer_to(parsed(0, 0, 0, too_long - 1), terms), WireError::kNone);
  EXPECT_EQ(answer_to(parsed(4, 0, 0, 0xffffffff), terms), WireError::kNone);
  EXPECT_EQ(answer_to(parsed(6, 0, 0, 0xffffffff), terms), WireError::kNone);
  EXPECT_EQ(answer_to(parsed(7, 0, 0, 0xffffffff), terms), WireError::kNone);
}

TEST(JudgeTest, AFlushWithARangeIsInvalid) {
  RequestTerms terms = terms_of_disk(1 << 20);
  EXPECT_EQ(answer_to(parsed(3, 0, 0, 0), terms), WireError::kNone);
  EXPECT_EQ(answer_to(parsed(3, 0, 512, 0), terms), WireError::kInvalid);
  EXPECT_EQ(answer_to(parsed(3, 0, 0, 512), terms), WireError::kInvalid);
}

TEST(JudgeTest, ARefusalNamesTheRuleAndItsNumbers) {
  RequestTerms terms = terms_of_disk(1 << 20);
  EXPECT_EQ(
      refusal(parsed(1, 0, (1 << 20) - 512, 513), terms),
      "write of 513 bytes at 1048064 goes past the end of the export, which has 1048576 bytes");
  EXPECT_EQ(refusal(parsed(0, 0, 4096, (32 << 20) + 1), terms),
            "read of 33554433 bytes at 4096 is longer than one request may be, 33554432 bytes");
  EXPECT_EQ(refusal(parsed(4, 0x42, 0, 512), terms),
            "trim with flags 0x42: not all of them go with it here");
  EXPECT_EQ(refusal(parsed(3, 0, 512, 7), terms),
            "flush of 7 bytes at 512: it takes neither offset nor length");
  EXPECT_EQ(refusal(parsed(99, 0, 0, 512), terms), "command 99 is not one that this server knows");
  EXPECT_EQ(refusal(parsed(7, 0, 0, 0), terms),
            "block status of 0 bytes at 0: it needs at least one byte");
  terms.block_status = false;
  EXPECT_EQ(refusal(parsed(7, 0, 0, 512), terms),
            "block status needs a metadata context, and the handshake selected none");
  terms.read_only = true;
  EXPECT_EQ(refusal(parsed(6, 0, 8192, 512), terms),
            "write zeroes of 512 bytes at 8192: the export is read-only");
}

}  // namespace
}  // namespace ringdisk::nbd
