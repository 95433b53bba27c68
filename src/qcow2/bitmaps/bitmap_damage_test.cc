// SPDX-License-Identifier: Apache-2.0
// Damaged bitmaps: bytes of the header's extension, the directory and the tables changed at random,
// then checked, read, written to, edited and repaired. Nothing crashes or loops, a reader is not
// concerned, and what a repair leaves is sound.
#include <gtest/gtest.h>

#include "qcow2/bitmaps/bitmap_fixture_test.h"
#include "qcow2/check/damaged_image_test.h"

namespace ringdisk::qcow2 {
namespace {

constexpr ByteCount kSize(512 << 10);

// Where bitmaps keep what they say: each a stretch of the file.
struct Places {
  uint64_t extension = 0, directory = 0, table = 0;
};

Places find_places(DamagedTables& tables) {
  Places places;
  for (uint64_t at = kVersion3HeaderBytes; at < 512 && places.extension == 0; at += 8) {
    if (tables.get(at) >> 32 == static_cast<uint64_t>(ExtensionType::kBitmaps)) {
      places.extension = at + 8;
    }
  }
  places.directory = tables.get(places.extension + 16);
  places.table = tables.get(places.directory);
  return places;
}

void damage(DamagedTables& tables, const Places& places, Random& random) {
  const uint64_t starts[] = {places.extension, places.directory, places.table};
  for (uint64_t i = 0; i < 1 + random.below(3); ++i) {
    const uint64_t at = starts[random.below(3)] + random.below(3) * 8;
    const uint64_t raw = tables.get(at);
    const uint64_t values[] = {raw ^ (uint64_t{1} << random.below(64)),
                               random.next(),
                               0,
                               places.directory,
                               tables.l1_table(),
                               random.below(1 << 20)};
    tables.put(at, values[random.below(6)]);
  }
}

// What is refused is refused; the image may have become read-only.
Task<void> use_image(const World& world, TestImage image, DamagedImage& damaged, uint64_t seed) {
  std::vector<bool> touched(kSize.value() / kTestGranularity);
  Result<void> changed =
      co_await change_image_at_random(world, image, damaged.storage(), seed, 3, touched).result();
  static_cast<void>(changed.ok());
  Result<SeenBitmaps> seen = co_await read_bitmaps(world, damaged.storage()).result();
  static_cast<void>(seen.ok());
  std::vector<BitmapEdit> edits = {add_bitmap("new")};
  Result<void> edited = co_await edit_test_bitmaps(world, damaged.storage(), edits).result();
  static_cast<void>(edited.ok());
}

TEST(BitmapDamageTest, DamagedBitmapsAreADangerToNobody) {
  sim::for_each_seed(150, [](uint64_t seed) {
    Random random(seed);
    TestImage image;
    image.cluster_bits = static_cast<uint32_t>(9 + random.below(5));
    DamagedImage damaged(image, kSize);
    damaged.write({0, 1, 5, 6});
    const World& world = damaged.world().world();
    std::vector<BitmapEdit> edits = {add_bitmap("b0"), add_bitmap("b1", 512)};
    auto add = [&](Shard&) { return edit_test_bitmaps(world, damaged.storage(), edits); };
    ASSERT_TRUE(damaged.world().run(add).ok());
    damaged.write({2, 7});
    const std::vector<std::byte> before = damaged.content();
    DamagedTables tables = damaged.tables();
    damage(tables, find_places(tables), random);
    damaged.check();
    EXPECT_EQ(damaged.content(), before);
    auto use = [&](Shard&) { return use_image(world, image, damaged, seed); };
    EXPECT_TRUE(damaged.world().run(use).ok());
    damaged.check(CheckRepair::kAll);
    const std::vector<std::byte> repaired = damaged.content();
    damaged.check(CheckRepair::kAll);
    EXPECT_EQ(damaged.content(), repaired);
  });
}

}  // namespace
}  // namespace ringdisk::qcow2
