// SPDX-License-Identifier: Apache-2.0
// The words that every node of a description may have.
#include "block/node_words.h"

#include <gtest/gtest.h>

#include <string>

#include "base/diagnostics.h"
#include "block/graph.h"

namespace ringdisk {
namespace {

Options parse(std::string_view text, Diagnostics& diagnostics) {
  return Options::parse(text, diagnostics).value();
}

TEST(NodeWordsTest, AFormatsAreItsStoragesUnlessThatHasItsOwn) {
  Diagnostics diagnostics;
  Options format =
      parse("node-name=top,read-only=on,cache.direct=on,cache.no-flush=off,size=1", diagnostics);
  Options storage = parse("node-name=below,read-only=off,filename=x", diagnostics);
  move_node_words(format, storage);
  EXPECT_EQ(format.values().size(), 1u);
  EXPECT_TRUE(format.has("size"));
  EXPECT_EQ(storage.get("read-only"), "off");
  EXPECT_EQ(storage.get("cache.direct"), "on");
  EXPECT_EQ(storage.get("cache.no-flush"), "off");
  EXPECT_EQ(storage.get("node-name"), "below");
}

TEST(NodeWordsTest, SayHowAStorageIsOpened) {
  Diagnostics diagnostics;
  Options storage =
      parse("node-name=x,auto-read-only=on,read-only=on,force-share=on,filename=x", diagnostics);
  OpenMode mode;
  mode.read_only = true;
  ASSERT_TRUE(take_node_words(storage, mode, diagnostics).ok());
  EXPECT_TRUE(mode.share);
  EXPECT_EQ(storage.values().size(), 1u);
}

TEST(NodeWordsTest, WhatIsReadOnlyIsNotOpenedForWriting) {
  Diagnostics diagnostics;
  OpenMode mode;
  Options storage = parse("read-only=on", diagnostics);
  const Result<void> taken = take_node_words(storage, mode, diagnostics);
  ASSERT_FALSE(taken.ok());
  EXPECT_EQ(taken.error().kind, ErrorKind::kDenied);
  EXPECT_NE(diagnostics.describe(taken.error()).find("read-only=on"), std::string::npos);
  Options writable = parse("read-only=off", diagnostics);
  EXPECT_TRUE(take_node_words(writable, mode, diagnostics).ok());
}

TEST(NodeWordsTest, AreOnOrOff) {
  Diagnostics diagnostics;
  for (const std::string key : {"read-only", "auto-read-only", "force-share"}) {
    Options storage = parse(key + "=maybe", diagnostics);
    OpenMode mode;
    EXPECT_FALSE(take_node_words(storage, mode, diagnostics).ok()) << key;
  }
}

}  // namespace
}  // namespace ringdisk
