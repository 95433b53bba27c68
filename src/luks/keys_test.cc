// SPDX-License-Identifier: Apache-2.0
// Key slots added, changed and removed: who opens the volume afterwards, and what is left of what
// was removed.
#include "luks/keys.h"

#include <gmock/gmock.h>

#include "luks/header_fixture_test.h"

namespace ringdisk::luks {
namespace {

using ::testing::HasSubstr;

Task<void> do_add(const World& world, HeaderWindow window, Unlock with, NewKey key,
                  uint32_t& slot) {
  slot = co_await add_key(world, window, with, key);
}
Task<void> do_change(const World& world, HeaderWindow window, Unlock with, NewKey key,
                     uint32_t& slot) {
  slot = co_await change_key(world, window, with, key);
}
Task<void> do_remove(const World& world, HeaderWindow window, Unlock with, bool may_be_last,
                     uint32_t& slot) {
  slot = co_await remove_key(world, window, with, may_be_last);
}

class KeySlots : public ::testing::TestWithParam<uint32_t> {
 protected:
  KeySlots() : volume(GetParam()) {}

  Result<void> add(Unlock with, NewKey key) {
    auto use = [&](HeaderWindow window) {
      return do_add(volume.world(), window, with, key, changed);
    };
    return volume.run(use);
  }
  Result<void> add(std::string_view with, std::string_view passphrase) {
    return add(by_passphrase(with), tested_key(GetParam(), passphrase));
  }
  Result<void> change(Unlock with, std::string_view passphrase) {
    const NewKey key = tested_key(GetParam(), passphrase);
    auto use = [&](HeaderWindow window) {
      return do_change(volume.world(), window, with, key, changed);
    };
    return volume.run(use);
  }
  Result<void> remove(std::string_view passphrase, bool may_be_last = false) {
    auto use = [&](HeaderWindow window) {
      return do_remove(volume.world(), window, by_passphrase(passphrase), may_be_last, changed);
    };
    return volume.run(use);
  }
  Result<void> kill(uint32_t slot, std::optional<Unlock> proof, bool may_be_last = false) {
    auto use = [&](HeaderWindow window) {
      return kill_slot(volume.world(), window, slot, proof, may_be_last);
    };
    return volume.run(use);
  }
  // Where the material of slot `number` of a tested volume lies.
  uint64_t area(uint32_t number) const {
    if (GetParam() == 1) return uint64_t{luks1_material_sector(number, 16)} * 512;
    return 2 * kLuks2HeaderBytesMin + number * 65536;
  }

  TestVolume volume;
  uint32_t changed = ~uint32_t{0};
};
INSTANTIATE_TEST_SUITE_P(Luks, KeySlots, ::testing::Values(1u, 2u));

TEST_P(KeySlots, AnAddedPassphraseOpensTheSameVolume) {
  ASSERT_EQ(volume.slot_of("first passphrase"), 0);
  const std::vector<std::byte> key = volume.key;
  ASSERT_TRUE(add("first passphrase", "second").ok());
  EXPECT_EQ(changed, 1u);
  EXPECT_EQ(volume.slot_of("second"), 1);
  EXPECT_TRUE(volume.key == key);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

TEST_P(KeySlots, ASlotIsAddedWhereAskedFor) {
  NewKey key = tested_key(GetParam(), "sixth");
  key.slot = 6;
  ASSERT_TRUE(add(by_passphrase("first passphrase"), key).ok());
  EXPECT_EQ(volume.slot_of("sixth"), 6);
  key.slot = 0;
  const Result<void> used = add(by_passphrase("first passphrase"), key);
  ASSERT_FALSE(used.ok());
  EXPECT_EQ(used.error().kind, ErrorKind::kBusy);
  key.slot = 32;
  EXPECT_EQ(add(by_passphrase("first passphrase"), key).error().kind, ErrorKind::kInvalid);
}

TEST_P(KeySlots, ASlotInUseIsReplacedWhereThatIsAskedFor) {
  ASSERT_TRUE(add("first passphrase", "second").ok());
  ASSERT_EQ(volume.slot_of("second"), 1);
  const std::vector<std::byte> key = volume.key;
  NewKey replacing = tested_key(GetParam(), "third");
  replacing.slot = 1;
  replacing.may_replace = true;
  ASSERT_TRUE(add(by_passphrase("first passphrase"), replacing).ok());
  EXPECT_EQ(changed, 1u);
  EXPECT_EQ(volume.slot_of("third"), 1);
  EXPECT_TRUE(volume.key == key);
  EXPECT_EQ(volume.open("second").error().kind, ErrorKind::kDenied);
  replacing.slot = 0;  // the one that opens the volume for it
  ASSERT_TRUE(add(by_passphrase("first passphrase"), replacing).ok());
  EXPECT_EQ(volume.open("first passphrase").error().kind, ErrorKind::kDenied);
  replacing.slot = 5;  // a free one
  ASSERT_TRUE(add(by_passphrase("third"), replacing).ok());
}

TEST_P(KeySlots, NothingIsAddedWithoutAPassphraseThatOpens) {
  const std::vector<std::byte> before = volume.content(0, 1 << 20);
  const Result<void> added = add("wrong", "second");
  ASSERT_FALSE(added.ok());
  EXPECT_EQ(added.error().kind, ErrorKind::kDenied);
  EXPECT_TRUE(volume.content(0, before.size()) == before);
}

TEST_P(KeySlots, TheVolumeKeyAddsASlotWhereNoneIsLeft) {
  ASSERT_EQ(volume.slot_of("first passphrase"), 0);
  const std::vector<std::byte> key = volume.key;
  ASSERT_TRUE(remove("first passphrase", true).ok());
  EXPECT_EQ(volume.text_of(volume.open("first passphrase")),
            "no key slot is in use; only the volume key opens this");
  Unlock with;
  with.volume_key = key;
  ASSERT_TRUE(add(with, tested_key(GetParam(), "again")).ok());
  EXPECT_EQ(volume.slot_of("again"), 0);
}

TEST_P(KeySlots, AChangedPassphraseKeepsItsSlot) {
  ASSERT_TRUE(add("first passphrase", "second").ok());
  ASSERT_TRUE(change(by_passphrase("second"), "other").ok());
  EXPECT_EQ(changed, 1u);
  EXPECT_EQ(volume.slot_of("other"), 1);
  EXPECT_EQ(volume.slot_of("second"), -1);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
  ASSERT_TRUE(change(by_passphrase("first passphrase"), "third").ok());
  EXPECT_EQ(volume.slot_of("third"), 0);
  EXPECT_EQ(volume.slot_of("first passphrase"), -1);
}

TEST_P(KeySlots, ARemovedPassphraseOpensNoMoreAndItsMaterialIsGone) {
  ASSERT_TRUE(add("first passphrase", "second").ok());
  const std::vector<std::byte> header = volume.content(0, 2 * kLuks2HeaderBytesMin);
  const std::vector<std::byte> material = volume.content(area(1), 64'000);
  ASSERT_TRUE(remove("second").ok());
  EXPECT_EQ(changed, 1u);
  EXPECT_EQ(volume.slot_of("second"), -1);
  // Not even with the header from before, which somebody may have kept.
  EXPECT_FALSE(volume.content(area(1), 64'000) == material);
  volume.disk().poke(0, Bytes(header).first(GetParam() == 1 ? 1024 : header.size()));
  EXPECT_EQ(volume.slot_of("second"), -1);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
}

TEST_P(KeySlots, TheLastOneIsNotRemovedUnlessForced) {
  const Result<void> removed = remove("first passphrase");
  ASSERT_FALSE(removed.ok());
  EXPECT_EQ(removed.error().kind, ErrorKind::kDenied);
  EXPECT_THAT(volume.text_of(removed), HasSubstr("key slot 0 is the last one"));
  EXPECT_EQ(kill(0, std::nullopt).error().kind, ErrorKind::kDenied);
  EXPECT_EQ(volume.slot_of("first passphrase"), 0);
  ASSERT_TRUE(kill(0, std::nullopt, true).ok());
  EXPECT_EQ(volume.slot_of("first passphrase"), -1);
}

TEST_P(KeySlots, ASlotIsKilledByWhoOpensAnother) {
  ASSERT_TRUE(add("first passphrase", "second").ok());
  const Result<void> own = kill(1, by_passphrase("second"));
  ASSERT_FALSE(own.ok());
  EXPECT_EQ(own.error().kind, ErrorKind::kDenied);
  EXPECT_EQ(volume.slot_of("second"), 1);
  ASSERT_TRUE(kill(1, by_passphrase("first passphrase")).ok());
  EXPECT_EQ(volume.slot_of("second"), -1);
  EXPECT_EQ(kill(1, std::nullopt).error().kind, ErrorKind::kNotFound);
  EXPECT_EQ(kill(77, std::nullopt).error().kind, ErrorKind::kNotFound);
}

TEST_P(KeySlots, AllOfThemCanBeUsedAndUsedAgain) {
  const uint32_t count = GetParam() == 1 ? kLuks1Slots : 15;  // what a header of 1 MiB has room for
  for (uint32_t i = 1; i < count; ++i) {
    ASSERT_TRUE(add("first passphrase", "passphrase " + std::to_string(i)).ok()) << i;
  }
  const Result<void> more = add("first passphrase", "more");
  ASSERT_FALSE(more.ok());
  EXPECT_EQ(more.error().kind, ErrorKind::kNoSpace);
  EXPECT_EQ(change(by_passphrase("first passphrase"), "more").error().kind, ErrorKind::kNoSpace);
  ASSERT_TRUE(kill(3, by_passphrase("first passphrase")).ok());
  ASSERT_TRUE(add("first passphrase", "more").ok());
  EXPECT_EQ(changed, 3u);
  for (uint32_t i = 1; i < count; ++i) {
    const std::string passphrase = i == 3 ? "more" : "passphrase " + std::to_string(i);
    EXPECT_EQ(volume.slot_of(passphrase), static_cast<int>(i));
  }
}

TEST_P(KeySlots, ADamagedCopyIsRepairedBeforeAChange) {
  if (GetParam() == 1) return;
  volume.change_byte(4100);
  ASSERT_TRUE(add("first passphrase", "second").ok());
  EXPECT_EQ(volume.slot_of("second"), 1);
  volume.change_byte(kLuks2HeaderBytesMin + 4100);
  EXPECT_EQ(volume.slot_of("second"), 1) << "the first copy is right again";
}

TEST_P(KeySlots, TokensOfOtherProgramsSurvive) {
  if (GetParam() == 1) return;
  auto plant = [&](HeaderWindow window) {
    return [](const World& world, HeaderWindow there) -> Task<void> {
      LuksHeader header = co_await read_header(world, there);
      Result<Json> token = parse_json(
          R"({"type":"clevis","keyslots":["0"],"jwe":{"payload":"x","n":[1,2.50,null]}})");
      header.luks2->json.find("tokens")->set("5", std::move(token).value());
      co_await write_luks2_header(world, there, *header.luks2);
    }(volume.world(), window);
  };
  ASSERT_TRUE(volume.run(plant).ok());
  ASSERT_TRUE(add("first passphrase", "second").ok());
  ASSERT_TRUE(remove("first passphrase").ok());
  const std::vector<std::byte> header = volume.content(0, kLuks2HeaderBytesMin);
  EXPECT_THAT(
      std::string(as_text(header)),
      HasSubstr(R"({"type":"clevis","keyslots":[],"jwe":{"payload":"x","n":[1,2.50,null]}})"));
}

TEST(FormatRequest, IsJudgedBeforeAnythingIsWritten) {
  sim::SimWorld world;
  const Refusal refusal(world.diagnostics(), 0);
  auto is_refused = [&](FormatRequest request) { return !plan_format(request, refusal).ok(); };
  EXPECT_FALSE(is_refused(tested_request(1)));
  EXPECT_FALSE(is_refused(tested_request(2)));
  std::vector<FormatRequest> wrong(18, tested_request(2));
  wrong[0].version = 3;
  wrong[1].key_bytes = 17;
  wrong[2].volume_key = as_bytes("too short");
  wrong[3].uuid = "no-uuid";
  wrong[4].label = std::string(48, 'x');
  wrong[5].slot = 32;
  wrong[6].sector_size = 1000;
  wrong[7].payload_offset = ByteCount(100'000);
  wrong[8].payload_offset = ByteCount(4096);
  wrong[9].luks2_header_bytes = 20'000;
  wrong[10].luks2_slot_area_bytes = 4096;
  wrong[11] = tested_request(1);
  wrong[11].label = "x";
  wrong[12] = tested_request(1);
  wrong[12].sector_size = 4096;
  wrong[13] = tested_request(1);
  wrong[13].kdf.kind = KdfKind::kArgon2id;
  wrong[14].kdf.iterations = kArgon2PassesMin - 1;
  wrong[15].kdf.memory_kib = kArgon2MemoryKibMin - 1;
  wrong[16].kdf.lanes = 5;
  wrong[17] = tested_request(1);
  wrong[17].kdf.iterations = kPbkdf2IterationsMin - 1;
  for (size_t i = 0; i < wrong.size(); ++i) EXPECT_TRUE(is_refused(wrong[i])) << i;
}

TEST_P(KeySlots, AFormatThatIsRefusedCostsNoHeader) {
  TestVolume volume(GetParam());
  std::vector<FormatRequest> wrong(3, tested_request(2));
  wrong[0].kdf.iterations = kArgon2PassesMin - 1;
  wrong[1].kdf.memory_kib = kArgon2MemoryKibMin - 1;
  wrong[2] = tested_request(1);
  wrong[2].kdf.iterations = kPbkdf2IterationsMin - 1;
  for (const FormatRequest& request : wrong) {
    auto format = [&](HeaderWindow window) { return format_only(volume.world(), window, request); };
    const Result<void> formatted = volume.run(format);
    ASSERT_FALSE(formatted.ok());
    EXPECT_EQ(formatted.error().kind, ErrorKind::kInvalid);
    EXPECT_EQ(volume.slot_of("first passphrase"), 0);
  }
}

TEST(FormatRequest, DefaultsAreThoseOfCryptsetup) {
  sim::SimWorld world;
  const Refusal refusal(world.diagnostics(), 0);
  FormatRequest request;
  FormatPlaces places = plan_format(request, refusal).value();
  EXPECT_EQ(places.payload_offset, ByteCount(16 << 20));
  EXPECT_EQ(places.slot_area_bytes, uint64_t{(16 << 20) - (32 << 10)});
  request.version = 1;
  EXPECT_EQ(plan_format(request, refusal).value().payload_offset, ByteCount(2 << 20));
  request.is_detached = true;
  EXPECT_EQ(plan_format(request, refusal).value().payload_offset, ByteCount(0));
}

}  // namespace
}  // namespace ringdisk::luks
