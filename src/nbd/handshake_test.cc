// SPDX-License-Identifier: Apache-2.0
// The handshake as clients of all kinds go through it, on a simulated network that splits and
// delays every message.
#include "nbd/handshake.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/limits.h"
#include "nbd/simulated_server_test.h"

namespace ringdisk::nbd {
namespace {

using Answers = std::vector<TestClient::OptionAnswer>;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr uint32_t kUnsupported = 0x80000001;
constexpr uint32_t kInvalid = 0x80000003;
constexpr uint32_t kUnknown = 0x80000006;
constexpr uint32_t kTooBig = 0x80000009;

// Runs `part` beside a server, under several orders of events.
template <class Part>
void serve(Part part, bool read_only = false) {
  sim::for_each_seed(5, [&part, read_only](uint64_t seed) {
    sim::SimWorld world(seed, 2);
    TestDisk disk(kDiskBytes);
    TestSetup setup(world, disk);
    setup.exports[0].read_only = read_only;
    Result<void> done = run_with_server(setup, part);
    EXPECT_TRUE(done.ok()) << world.diagnostics().describe(done.ok() ? Error() : done.error());
  });
}

// HAS_FLAGS, FLUSH, FUA, MULTI_CONN, CACHE
constexpr uint16_t kFlagsAlways = 0x1 | 0x4 | 0x8 | 0x100 | 0x400;
// TRIM, WRITE_ZEROES, FAST_ZERO
constexpr uint16_t kFlagsWritable = 0x20 | 0x40 | 0x800;
constexpr uint16_t kFlagReadOnlyBit = 0x2;
constexpr uint16_t kFlagDfBit = 0x80;

Task<void> go_and_say_goodbye(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", false);
  EXPECT_EQ(client->export_size, kDiskBytes);
  EXPECT_EQ(client->export_flags, kFlagsAlways | kFlagsWritable);
  co_await client->disconnect();
  size_t rest = co_await client->drain();
  EXPECT_EQ(rest, 0u);
}
TEST(HandshakeTest, GoEntersTransmissionWithSizeAndFlags) { serve(&go_and_say_goodbye); }

Task<void> go_structured(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", true);
  EXPECT_EQ(client->export_flags, kFlagsAlways | kFlagsWritable | kFlagDfBit);
  co_await client->disconnect();
}
TEST(HandshakeTest, DfIsOfferedWithStructuredReplies) { serve(&go_structured); }

Task<void> go_read_only(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->go("disk", false);
  EXPECT_EQ(client->export_flags, kFlagsAlways | kFlagReadOnlyBit);
  co_await client->disconnect();
}
TEST(HandshakeTest, AReadOnlyExportSaysSo) { serve(&go_read_only, true); }

Task<void> enter_by_export_name(TestBench& bench, uint32_t client_flags) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet(client_flags);
  co_await client->send(TestClient::option(1, "disk"));
  size_t zeroes = (client_flags & 2) != 0 ? 0 : 124;
  std::string reply = co_await client->receive(10 + zeroes);
  EXPECT_EQ(reply,
            be64(kDiskBytes) + be16(kFlagsAlways | kFlagsWritable) + std::string(zeroes, '\0'));
  TestClient::Reply read = co_await client->call(0, 0, 0, 512);
  EXPECT_EQ(read.error, 0u);
  EXPECT_EQ(read.read, std::string(512, '\0'));
  co_await client->disconnect();
}
Task<void> export_name_without_zeroes(TestBench& bench) { co_await enter_by_export_name(bench, 3); }
Task<void> export_name_with_zeroes(TestBench& bench) { co_await enter_by_export_name(bench, 1); }
Task<void> export_name_not_fixed(TestBench& bench) { co_await enter_by_export_name(bench, 0); }
TEST(HandshakeTest, ExportNameEntersWithoutZeroes) { serve(&export_name_without_zeroes); }
TEST(HandshakeTest, ExportNameSendsZeroesToThoseWhoDidNotDeclineThem) {
  serve(&export_name_with_zeroes);
}
TEST(HandshakeTest, ExportNameServesClientsOfPlainNewstyle) { serve(&export_name_not_fixed); }

// Whatever is sent, the server closes without saying anything more than `bytes_expected`.
Task<void> expect_closed_after(TestBench& bench, uint32_t client_flags, std::string bytes) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet(client_flags);
  // The server may have closed before all of it is sent.
  (void)co_await client->send(bytes).result();
  size_t rest = co_await client->drain();
  EXPECT_EQ(rest, 0u);
}
Task<void> ask_for_unknown_export_name(TestBench& bench) {
  co_await expect_closed_after(bench, 3, TestClient::option(1, "nothing"));
}
Task<void> send_unknown_client_flags(TestBench& bench) {
  co_await expect_closed_after(bench, 4, TestClient::option(1, "disk"));
}
Task<void> send_wrong_option_magic(TestBench& bench) {
  co_await expect_closed_after(bench, 3, "IHAVEOPX" + be32(3) + be32(0));
}
Task<void> list_in_plain_newstyle(TestBench& bench) {
  co_await expect_closed_after(bench, 0, TestClient::option(3, ""));
}
Task<void> claim_an_absurd_length(TestBench& bench) {
  co_await expect_closed_after(bench, 3, "IHAVEOPT" + be32(3) + be32(0xffffffff));
}
TEST(HandshakeTest, AnUnknownExportNameEndsTheConnection) { serve(&ask_for_unknown_export_name); }
TEST(HandshakeTest, UnknownClientFlagsEndTheConnection) { serve(&send_unknown_client_flags); }
TEST(HandshakeTest, GarbageInsteadOfAnOptionEndsTheConnection) { serve(&send_wrong_option_magic); }
TEST(HandshakeTest, PlainNewstyleKnowsNoOtherOption) { serve(&list_in_plain_newstyle); }
TEST(HandshakeTest, AnOptionOfAbsurdLengthEndsTheConnection) { serve(&claim_an_absurd_length); }

Task<void> list_exports(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  Answers answers = co_await client->ask(3, "");
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].type, 2u);
  EXPECT_EQ(answers[0].payload, be32(4) + "disk" + "a disk for tests");
  answers = co_await client->ask(3, "x");
  EXPECT_EQ(answers.back().type, kInvalid);
  answers = co_await client->ask(2, "");
  EXPECT_EQ(answers.back().type, 1u);
  size_t rest = co_await client->drain();
  EXPECT_EQ(rest, 0u);
}
TEST(HandshakeTest, ListNamesTheExportsAndAbortIsAcknowledged) { serve(&list_exports); }

Task<void> ask_for_everything(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  Answers answers = co_await client->ask(6, TestClient::info_request("", 1, 2, 3, 77));
  EXPECT_EQ(answers.size(), 5u);
  EXPECT_EQ(answers[0].payload, be16(0) + be64(kDiskBytes) + be16(kFlagsAlways | kFlagsWritable));
  EXPECT_EQ(answers[1].payload, be16(1) + "disk");
  EXPECT_EQ(answers[2].payload, be16(2) + "a disk for tests");
  EXPECT_EQ(answers[3].payload, be16(3) + be32(1) + be32(4096) + be32(32 << 20));
  EXPECT_EQ(answers[4].type, 1u);
  // INFO has not entered transmission: options still work.
  answers = co_await client->ask(7, TestClient::info_request("nothing"));
  EXPECT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers.back().type, kUnknown);
  answers = co_await client->ask(7, be32(100) + "disk");
  EXPECT_EQ(answers.back().type, kInvalid);
  answers = co_await client->ask(2, "");
}
TEST(HandshakeTest, InfoDescribesTheExportAndErrorsLeaveTheNegotiationOpen) {
  serve(&ask_for_everything);
}

Task<void> ask_for_what_is_not_there(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  for (uint32_t option : {4u, 5u, 11u, 12u, 0u, 0xffffffffu}) {
    Answers answers = co_await client->ask(option, "payload");
    EXPECT_EQ(answers.size(), 1u);
    EXPECT_EQ(answers[0].option, option);
    EXPECT_EQ(answers[0].type, kUnsupported) << option;
  }
  Answers answers = co_await client->ask(3, std::string(limits::kNbdOptionBytesMax + 1, 'x'));
  EXPECT_EQ(answers.back().type, kTooBig);
  answers = co_await client->ask(6, std::string(1 << 20, 'x'));
  EXPECT_EQ(answers.back().type, kTooBig);
  answers = co_await client->ask(8, "x");
  EXPECT_EQ(answers.back().type, kInvalid);
  answers = co_await client->ask(7, TestClient::info_request("disk"));
  EXPECT_EQ(answers.back().type, 1u);
  co_await client->disconnect();
}
TEST(HandshakeTest, UnknownAndOversizeOptionsAreRefusedAndPassedOver) {
  serve(&ask_for_what_is_not_there);
}

Task<void> negotiate_contexts(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  std::string wanted = TestClient::meta_request("disk", "base:allocation");
  Answers answers = co_await client->ask(10, wanted);
  EXPECT_EQ(answers.back().type, kInvalid);  // needs structured replies
  answers = co_await client->ask(8, "");
  EXPECT_EQ(answers.back().type, 1u);
  answers = co_await client->ask(9, TestClient::meta_request("disk"));
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].payload.substr(4), "base:allocation");
  answers = co_await client->ask(9, TestClient::meta_request("disk", "base:", "x-y:z"));
  EXPECT_EQ(answers.size(), 2u);
  answers = co_await client->ask(9, TestClient::meta_request("disk", "qemu:dirty-bitmap:"));
  EXPECT_EQ(answers.size(), 1u);
  EXPECT_EQ(answers.back().type, 1u);
  answers = co_await client->ask(10, TestClient::meta_request("disk", "base:"));
  EXPECT_EQ(answers.size(), 1u);  // no wildcard in a selection
  answers = co_await client->ask(10, TestClient::meta_request("nothing", "base:allocation"));
  EXPECT_EQ(answers.back().type, kUnknown);
  std::string too_many = be32(4) + "disk" + be32(17);
  for (int i = 0; i < 17; ++i) too_many += be32(15) + "base:allocation";
  answers = co_await client->ask(10, too_many);
  EXPECT_EQ(answers.back().type, kTooBig);
  answers = co_await client->ask(10, wanted);
  EXPECT_EQ(answers.size(), 2u);
  EXPECT_EQ(answers[0].type, 4u);
  EXPECT_EQ(answers[0].payload, be32(1) + "base:allocation");
  answers = co_await client->ask(2, "");
}
TEST(HandshakeTest, MetadataContextsAreListedAndSelected) { serve(&negotiate_contexts); }

Task<void> reselect_nothing(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  Answers answers = co_await client->ask(8, "");
  answers = co_await client->ask(10, TestClient::meta_request("disk", "base:allocation"));
  answers = co_await client->ask(10, "broken");
  EXPECT_EQ(answers.back().type, kInvalid);
  answers = co_await client->ask(7, TestClient::info_request("disk"));
  co_await client->send(client->request(7, 0, 0, 512));
  std::string reply = co_await client->receive(20 + 6);
  EXPECT_EQ(number_at(reply, 6, 2), 0x8001u);  // an error chunk
  EXPECT_EQ(number_at(reply, 20, 4), 22u);
  co_await client->disconnect();
}
TEST(HandshakeTest, AFailedSelectionUndoesTheOneBefore) { serve(&reselect_nothing); }

Task<void> negotiate_without_end(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  co_await client->greet();
  constexpr uint32_t kOptionsMax =
      limits::kNbdHandshakeOptionsMax + limits::kNbdOptionsPerExportMax;  // of one export
  for (uint32_t i = 0; i < kOptionsMax; ++i) {
    Answers answers = co_await client->ask(3, "");
    EXPECT_EQ(answers.back().type, 1u);
  }
  (void)co_await client->send(TestClient::option(3, "")).result();
  size_t rest = co_await client->drain();
  EXPECT_EQ(rest, 0u);
}
TEST(HandshakeTest, TheNumberOfOptionsIsBounded) { serve(&negotiate_without_end); }

Task<void> stall_after(TestBench& bench, size_t bytes) {
  Instant begun = bench.world.clock().now();
  std::unique_ptr<TestClient> client = co_await bench.connect();
  std::string greeting = co_await client->receive(18);
  std::string session = be32(3) + TestClient::option(7, TestClient::info_request("disk"));
  co_await client->send(session.substr(0, bytes));
  co_await client->drain();
  Duration took = bench.world.clock().now() - begun;
  EXPECT_GE(took, std::chrono::seconds(limits::kNbdHandshakeSeconds));
  EXPECT_LT(took, std::chrono::seconds(limits::kNbdHandshakeSeconds + 1));
}
Task<void> stall_everywhere(TestBench& bench) {
  for (size_t bytes = 0; bytes < 4 + 16 + 10; ++bytes) co_await stall_after(bench, bytes);
}
TEST(HandshakeTest, AClientThatStallsIsCutOffInTime) { serve(&stall_everywhere); }

// Asks for lists and never reads them, so that the server cannot send on.
Task<void> never_read(TestBench& bench) {
  std::unique_ptr<TestClient> client = co_await bench.connect();
  bench.world.network().behaviour.buffered_bytes = 64;
  co_await client->send(be32(3));
  for (uint32_t i = 0; i < 3; ++i) {
    (void)co_await client->send(TestClient::option(3, "")).result();
  }
  Result<void> slept = co_await Shard::current().sleep(std::chrono::seconds(25));
  EXPECT_TRUE(slept.ok());
  EXPECT_EQ(bench.server.connections(), 0u);
}
TEST(HandshakeTest, AClientThatDoesNotReadIsCutOffInTime) { serve(&never_read); }

}  // namespace
}  // namespace ringdisk::nbd
