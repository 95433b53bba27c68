// SPDX-License-Identifier: Apache-2.0
// Labels, UUIDs and priorities changed, key slots erased, and what stays of the rest of a header.
// Crashes and failures of them are in keys_crash_test.cc.
#include "luks/config.h"

#include <gmock/gmock.h>

#include "luks/header_fixture_test.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

constexpr const char* kUuid = "22222222-2222-4222-8222-222222222222";

class Configs : public ::testing::TestWithParam<uint32_t> {
 protected:
  Configs() : volume_(GetParam()) {}

  Result<void> change(const HeaderConfig& config) {
    auto use = [&](HeaderWindow window) { return change_config(volume_.world(), window, config); };
    return volume_.run(use);
  }
  LuksHeader header() {
    LuksHeader header;
    auto use = [&](HeaderWindow window) { return read(window, header); };
    EXPECT_TRUE(volume_.run(use).ok());
    return header;
  }
  Result<void> add(std::string_view passphrase) {
    auto use = [&](HeaderWindow window) { return add_slot(window, passphrase); };
    return volume_.run(use);
  }
  Result<void> erase(uint32_t& erased) {
    auto use = [&](HeaderWindow window) { return erase_into(window, erased); };
    return volume_.run(use);
  }
  void expect_refused(const HeaderConfig& config, ErrorKind kind, std::string_view why) {
    const std::vector<std::byte> before = volume_.content(0, 32768);
    const Result<void> changed = change(config);
    ASSERT_FALSE(changed.ok());
    EXPECT_EQ(changed.error().kind, kind);
    EXPECT_THAT(volume_.text_of(changed), HasSubstr(std::string(why)));
    EXPECT_TRUE(volume_.content(0, 32768) == before) << "something was written";
  }

  TestVolume volume_;

 private:
  Task<void> read(HeaderWindow window, LuksHeader& target) {
    LuksHeader header = co_await read_header(volume_.world(), window);
    target = std::move(header);
  }
  Task<void> add_slot(HeaderWindow window, std::string_view passphrase) {
    NewKey key = tested_key(GetParam(), passphrase);
    const Unlock with = by_passphrase("first passphrase");
    co_await add_key(volume_.world(), window, with, key);
  }
  Task<void> erase_into(HeaderWindow window, uint32_t& erased) {
    erased = co_await erase_keys(volume_.world(), window);
  }
};
INSTANTIATE_TEST_SUITE_P(Luks, Configs, ::testing::Values(1u, 2u));

TEST_P(Configs, ChangeTheUuidAndLeaveTheKeys) {
  HeaderConfig config;
  config.uuid = kUuid;
  ASSERT_TRUE(change(config).ok());
  EXPECT_EQ(header().uuid(), kUuid);
  EXPECT_EQ(volume_.slot_of("first passphrase"), 0);
  config.uuid = "mine";
  expect_refused(config, ErrorKind::kInvalid, "'mine' is no UUID, such as");
}

TEST_P(Configs, OfLabelsAndPrioritiesAreForVersion2) {
  HeaderConfig config;
  config.label = "a label";
  config.subsystem = "a subsystem";
  if (GetParam() == 1) {
    expect_refused(config, ErrorKind::kUnsupported, "LUKS1 has no labels");
    return;
  }
  config.slot_priority = 0;
  ASSERT_TRUE(change(config).ok());
  EXPECT_EQ(header().luks2->binary.label, "a label");
  EXPECT_EQ(header().luks2->binary.subsystem, "a subsystem");
  EXPECT_EQ(volume_.slot_of("first passphrase"), -1) << "left out unless it is asked for";
  HeaderConfig back;
  back.slot_priority = 1;
  back.label = "";
  ASSERT_TRUE(change(back).ok());
  EXPECT_EQ(header().luks2->binary.label, "");
  EXPECT_EQ(header().luks2->binary.subsystem, "a subsystem");
  EXPECT_EQ(header().luks2->json.find("keyslots")->find("0")->find("priority"), nullptr);
  EXPECT_EQ(volume_.slot_of("first passphrase"), 0);
  back.slot = 7;
  expect_refused(back, ErrorKind::kNotFound, "key slot 7 is not in use");
  config.label = std::string(48, 'x');
  expect_refused(config, ErrorKind::kInvalid, "a label has at most 47 bytes");
}

TEST_P(Configs, RepairADamagedCopyFirst) {
  if (GetParam() == 1) return;
  volume_.change_byte(5000);
  HeaderConfig config;
  config.label = "a label";
  ASSERT_TRUE(change(config).ok());
  EXPECT_FALSE(header().luks2->bad_copy);
  EXPECT_EQ(header().luks2->binary.label, "a label");
}

TEST_P(Configs, KeepTokensAndUnboundKeySlots) {
  if (GetParam() == 1) return;
  const LuksHeader before = header();
  const Json* slot = before.luks2->json.find("keyslots")->find("0");
  const Json* digest = before.luks2->json.find("digests")->find("0");
  // A slot of some other key, in an area of its own.
  std::string slot_json = encode_json(*slot), digest_json = encode_json(*digest);
  const uint64_t area = before.luks2->metadata.slots.front().slot.area.value();
  const uint64_t size = before.luks2->metadata.slots.front().slot.area_size.value();
  auto replace = [](std::string& text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos);
    text.replace(at, from.size(), to);
  };
  replace(slot_json, "\"" + std::to_string(area) + "\"", "\"" + std::to_string(area + size) + "\"");
  replace(digest_json, R"("segments":["0"])", R"("segments":[])");
  replace(digest_json, R"("keyslots":["0"])", R"("keyslots":["5"])");
  auto both = [&](HeaderWindow window) -> Task<void> {
    return [](const World& world, HeaderWindow there, std::string_view one,
              std::string_view other) -> Task<void> {
      LuksHeader header = co_await read_header(world, there);
      Json& json = header.luks2->json;
      json.find("keyslots")->set("5", parse_json(one).value());
      json.find("digests")->set("1", parse_json(other).value());
      Json token = parse_json(R"({"type":"some","keyslots":["5"],"text":[1.50]})").value();
      json.find("tokens")->set("3", std::move(token));
      co_await write_luks2_header(world, there, *header.luks2);
    }(volume_.world(), window, slot_json, digest_json);
  };
  ASSERT_TRUE(volume_.run(both).ok());
  HeaderConfig config;
  config.label = "a label";
  config.slot_priority = 2;
  ASSERT_TRUE(change(config).ok());
  ASSERT_TRUE(add("second passphrase").ok());
  const LuksHeader after = header();
  const Json& json = after.luks2->json;
  EXPECT_EQ(encode_json(*json.find("keyslots")->find("5")), slot_json);
  EXPECT_EQ(encode_json(*json.find("digests")->find("1")), digest_json);
  EXPECT_EQ(encode_json(*json.find("tokens")->find("3")),
            R"({"type":"some","keyslots":["5"],"text":[1.50]})");
  auto kill = [&](HeaderWindow window) {
    return kill_slot(volume_.world(), window, 5, std::nullopt, false);
  };
  ASSERT_TRUE(volume_.run(kill).ok());
  const LuksHeader without = header();
  EXPECT_EQ(without.luks2->json.find("digests")->find("1"), nullptr) << "it is of no key any more";
  EXPECT_NE(without.luks2->json.find("digests")->find("0"), nullptr);
  EXPECT_EQ(encode_json(*without.luks2->json.find("tokens")->find("3")),
            R"({"type":"some","keyslots":[],"text":[1.50]})");
}

TEST_P(Configs, AnErasedVolumeHasNoKeyAndNoMaterial) {
  ASSERT_TRUE(add("second passphrase").ok());
  const VolumeFacts facts = GetParam() == 1
                                ? facts_of(*header().luks1)
                                : facts_of(header().luks2->binary, header().luks2->metadata);
  ASSERT_EQ(facts.slots.size(), 2u);
  std::vector<std::vector<std::byte>> before;
  for (const KeySlot& slot : facts.slots) {
    before.push_back(volume_.content(slot.area.value(), material_bytes(slot.key_bytes)));
  }
  const std::vector<std::byte> payload = volume_.content(1 << 20, 4096);
  uint32_t erased = 0;
  ASSERT_TRUE(erase(erased).ok());
  EXPECT_EQ(erased, 2u);
  EXPECT_EQ(volume_.slot_of("first passphrase"), -1);
  EXPECT_EQ(volume_.slot_of("second passphrase"), -1);
  for (size_t i = 0; i < before.size(); ++i) {
    const std::vector<std::byte> now =
        volume_.content(facts.slots[i].area.value(), before[i].size());
    // No block of it is left.
    for (size_t at = 0; at + 512 <= now.size(); at += 512) {
      EXPECT_FALSE(std::equal(now.begin() + at, now.begin() + at + 512, before[i].begin() + at));
    }
  }
  EXPECT_TRUE(volume_.content(1 << 20, 4096) == payload);
  ASSERT_TRUE(erase(erased).ok()) << "once more";
  EXPECT_EQ(erased, 0u);
}

}  // namespace
}  // namespace ringdisk::luks
